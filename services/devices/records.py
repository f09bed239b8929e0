"""A device as a document: its fields by their proto names, and what only the store needs beside them.

The etag is not stored: it is the document's version, known only after the commit, and filled in when a device is read.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from bas.devices.v2.devices_pb2 import Device
from chassis.api.filter_spec import label_terms
from chassis.api.ids import etag_of
from chassis.store.documents import MessageCodec
from chassis.store.port import Document, Fields, Key
from services.devices.filters import COLLECTION, LABEL_TERMS
from services.devices.presence import Run

REGISTRY: Final = "$devices"
"""The partition of what the service itself keeps; no tenant's id has such a character."""

TENANTS: Final = "tenants"
"""Collection of the registry: a document for each tenant that ever registered a device."""

_RUN: Final = "run"
_CODEC: Final = MessageCodec(Device)


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
    """What is stored; every field that a list is ordered or filtered by is there, also when it is empty."""
    fields = _CODEC.fields(held.device)
    del fields["etag"]
    fields.setdefault("last_seen_time", None)  # a list ordered by it has the devices that were never seen, too
    fields[LABEL_TERMS] = label_terms(held.device.labels)
    run = held.run
    if run.boot is not None:
        fields[_RUN] = {"boot": run.boot, "sequence": run.sequence, "retired": list(run.retired)}
    return fields


def stored(document: Document) -> Stored:
    device = _CODEC.message(document.fields)
    device.etag = etag_of(document.version)
    run: Any = document.fields.get(_RUN)
    known = Run() if run is None else Run(run["boot"], run["sequence"], tuple(run["retired"]))
    return Stored(document.key.tenant, device, document.version, known)
