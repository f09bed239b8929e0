"""What is told of a device's changes. No I/O.

| event | when |
|---|---|
| `device.created` | it was registered |
| `device.updated` | a caller changed it; `changedPaths` says what |
| `device.online`, `device.offline` | its status became that; `previousStatus` says from what |
| `device.disabled`, `device.enabled` | it was taken out of service, and back: it is OFFLINE then, until it is heard of |
| `device.deleted` | it is gone; of the device, only the id is told |

That it was seen again, or when anything was last written, is no event.
"""

from types import MappingProxyType
from typing import Any, Final

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    Device,
    DeviceStatus,
)
from chassis.outbox.announcements import Happening, changed_paths
from chassis.outbox.effects import message_data

_NO_CHANGE: Final = frozenset({"last_seen_time", "status_time", "create_time", "update_time", "etag"})
_TOLD_BY_STATUS: Final = frozenset({"status", "status_reason"})

_TURNED: Final = MappingProxyType(
    {
        DEVICE_STATUS_ONLINE: "device.online",
        DEVICE_STATUS_OFFLINE: "device.offline",
        DEVICE_STATUS_DISABLED: "device.disabled",
    }
)


def created(tenant: str, device: Device) -> Happening:
    return _happening(tenant, "device.created", device)


def changed(tenant: str, before: Device, after: Device) -> list[Happening]:
    """What the change is to others: nothing, one event, or, where fields and status changed, both."""
    turned = before.status != after.status
    happenings = []
    paths = changed_paths(before, after, _NO_CHANGE | _TOLD_BY_STATUS if turned else _NO_CHANGE)
    if paths:
        happenings.append(_happening(tenant, "device.updated", after, changedPaths=paths))
    if turned:
        more = {"previousStatus": DeviceStatus.Name(before.status)}
        if after.status_reason:
            more["reason"] = after.status_reason
        back = before.status == DEVICE_STATUS_DISABLED and after.status == DEVICE_STATUS_OFFLINE
        happenings.append(_happening(tenant, "device.enabled" if back else _TURNED[after.status], after, **more))
    return happenings


def deleted(tenant: str, device_id: str) -> Happening:
    return _happening(tenant, "device.deleted", Device(device_id=device_id))


def _happening(tenant: str, type_: str, device: Device, **more: Any) -> Happening:
    shown = message_data(device)
    shown.pop("etag", None)  # it follows from the commit that this is to be part of
    return Happening(tenant, type_, f"devices/{device.device_id}", "device", shown, more)
