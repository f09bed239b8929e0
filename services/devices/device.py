"""The rules of a device: what a caller may set, how its status moves, what is derived from it. No I/O."""

from collections.abc import Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    Device,
    DeviceStatus,
)
from chassis.api.masks import apply_update
from chassis.errors import ApiError, Code, invalid_field

STATUSES: Final = (
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_ONLINE,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_DISABLED,
)

BY_CALLER: Final = MappingProxyType(
    {
        DEVICE_STATUS_NEVER_SEEN: frozenset({DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED}),
        DEVICE_STATUS_ONLINE: frozenset({DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED}),
        DEVICE_STATUS_OFFLINE: frozenset({DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED}),
        DEVICE_STATUS_DISABLED: frozenset({DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED}),
    }
)
"""Status → what SetDeviceStatus may make of it. Out of DISABLED only OFFLINE leads: ONLINE stands for a heartbeat, and
a disabled device's heartbeats are refused."""

BY_HEARTBEAT: Final = frozenset({DEVICE_STATUS_NEVER_SEEN, DEVICE_STATUS_OFFLINE})
"""What a heartbeat turns ONLINE."""

BY_LAPSE: Final = frozenset({DEVICE_STATUS_ONLINE})
"""What silence turns OFFLINE."""


def registered(device_id: str, given: Device, now: datetime) -> Device:
    """The device that a create stores: the caller's fields of `given`, the rest ours."""
    device = Device(
        device_id=device_id,
        display_name=given.display_name,
        type=given.type,
        labels=given.labels,
        metadata=given.metadata,
        status=DEVICE_STATUS_NEVER_SEEN,
    )
    device.create_time.FromDatetime(now)
    device.update_time.CopyFrom(device.create_time)
    device.status_time.CopyFrom(device.create_time)
    return device


def updated(current: Device, patch: Device, mask: FieldMask, now: datetime) -> Device | None:
    """The device with what `mask` names taken from `patch`; None when nothing would change. Raises INVALID_ARGUMENT."""
    changed = apply_update(current, patch, mask)
    if changed == current:
        return None
    _forward(changed.update_time, now)
    return changed


def turn(device: Device, status: DeviceStatus.ValueType, reason: str, now: datetime) -> None:
    """Change the status in place; the times move with it, and never back."""
    _forward(device.update_time, now)
    if device.status != status:
        device.status = status
        device.status_time.CopyFrom(device.update_time)
    device.status_reason = reason


def same_but_for_last_seen(one: Device, other: Device) -> bool:
    """Whether a change is only that the device was seen: that moves it in no list and no count, which may then lag by
    their TTL."""
    seen = Device()
    seen.CopyFrom(one)
    seen.etag = other.etag
    seen.ClearField("last_seen_time")
    if other.HasField("last_seen_time"):
        seen.last_seen_time.CopyFrom(other.last_seen_time)
    return seen == other


def settable(device_id: str, current: DeviceStatus.ValueType, wanted: DeviceStatus.ValueType) -> None:
    """Raises INVALID_ARGUMENT for a status that nobody can set, FAILED_PRECONDITION for one that does not follow."""
    if wanted == DEVICE_STATUS_NEVER_SEEN or wanted not in STATUSES:
        raise invalid_field("status", "must be DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE or DEVICE_STATUS_DISABLED")
    if wanted not in BY_CALLER[current]:
        raise disabled(device_id)


def disabled(device_id: str) -> ApiError:
    """What is asked of a device that was taken out of service."""
    return ApiError(
        Code.FAILED_PRECONDITION,
        "DEVICE_DISABLED",
        f"The device {device_id!r} is disabled: set its status to DEVICE_STATUS_OFFLINE to take it back into service.",
    )


def duplicates(ids: Sequence[str]) -> set[int]:
    """Positions of ids that already occurred before in the batch; empty ids are never duplicates."""
    seen: set[str] = set()
    again = set()
    for position, device_id in enumerate(ids):
        if device_id and device_id in seen:
            again.add(position)
        seen.add(device_id)
    return again


def _forward(time: Timestamp, now: datetime) -> None:
    """Set to now, unless another replica's clock was ahead of ours: a time that was shown does not go back."""
    moment = Timestamp()
    moment.FromDatetime(now)
    if (moment.seconds, moment.nanos) > (time.seconds, time.nanos):
        time.CopyFrom(moment)
