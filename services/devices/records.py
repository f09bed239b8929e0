"""A device as a document: its fields by their proto names, and what only the store needs beside them.

The etag is not stored: it is the document's version, known only after the commit, and filled in when a device is read.
"""

from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final, Literal

from bas.devices.v2.devices_pb2 import Device
from chassis.api.filter_spec import label_terms
from chassis.api.ids import etag_of
from chassis.store.port import Document, Fields, Key, Value
from services.devices.filters import COLLECTION, LABEL_TERMS
from services.devices.presence import Run

REGISTRY: Final = "$devices"
"""The partition of what the service itself keeps; no tenant's id has such a character."""

TENANTS: Final = "tenants"
"""Collection of the registry: a document for each tenant that ever registered a device."""

_RUN: Final = "run"
_PLAIN: Final = ("device_id", "display_name", "type", "status", "status_reason")
_MAPS: Final = ("labels", "metadata")
_TIMES: Final[tuple[Literal["status_time", "last_seen_time", "create_time", "update_time"], ...]] = (
    "status_time",
    "last_seen_time",
    "create_time",
    "update_time",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A device at a version. `device.etag` is that version's; `run` is what its heartbeats had come to when it was
    last written as seen. Decide on a copy: the message is not frozen."""

    tenant: str
    device: Device
    version: str
    run: Run = field(default_factory=Run)

    def copy(self) -> "Stored":
        device = Device()
        device.CopyFrom(self.device)
        return Stored(self.tenant, device, self.version, self.run)

    @property
    def last_seen(self) -> int:
        """Milliseconds since the epoch, 0 for never."""
        return self.device.last_seen_time.ToMilliseconds()


def document_key(tenant: str, device_id: str) -> Key:
    return Key(tenant, COLLECTION, device_id)


def fields_of(held: Stored) -> Fields:
    """What is stored. Every field that a list is ordered or filtered by is there, also when it is empty."""
    device, run = held.device, held.run
    fields: dict[str, Value] = {name: getattr(device, name) for name in _PLAIN}
    fields |= {name: dict(getattr(device, name)) for name in _MAPS}
    fields |= {name: getattr(device, name).ToDatetime(UTC) for name in _TIMES if device.HasField(name)}
    fields[LABEL_TERMS] = label_terms(device.labels)
    if run.boot is not None:
        fields[_RUN] = {"boot": run.boot, "sequence": run.sequence, "retired": list(run.retired)}
    return fields


def stored(document: Document) -> Stored:
    fields: Any = document.fields
    device = Device(**{name: fields[name] for name in (*_PLAIN, *_MAPS) if name in fields})
    for name in _TIMES:
        if name in fields:
            getattr(device, name).FromDatetime(fields[name])
    device.etag = etag_of(document.version)
    run = fields.get(_RUN)
    known = Run() if run is None else Run(run["boot"], run["sequence"], tuple(run["retired"]))
    return Stored(document.key.tenant, device, document.version, known)
