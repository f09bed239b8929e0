"""What is kept of an event, and how it is made a LoggedEvent again without being parsed.

A record is a CloudEvent without what the log knows itself (specversion, tenantid, sequence), with type, source and
subject first: filters look at those three and at nothing else. Order and concatenation of fields mean nothing to a
protobuf parser (protobuf.dev/programming-guides/encoding), so a LoggedEvent is put together from pieces.
"""

from datetime import datetime
from hashlib import sha256
from typing import Final

from bas.events.v2.events_pb2 import CloudEvent
from chassis.api.cursors import Position
from services.events.port import Entry

SPECVERSION: Final = "1.0"

_LENGTH_DELIMITED: Final = 2
_MORE: Final = 0x80
"""The bit of a varint's byte that says that another follows."""
_HEAD: Final = ("type", "source", "subject")
_OWN: Final = ("specversion", "tenantid", "sequence")
_DIGEST: Final = 16


def _tag(field: str) -> bytes:
    return _varint(CloudEvent.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    if number < _MORE:
        return bytes((number,))
    out = bytearray()
    while number >= _MORE:
        out.append(number & 0x7F | _MORE)
        number >>= 7
    out.append(number)
    return bytes(out)


_TYPE, _SOURCE, _SUBJECT = (_tag(name) for name in _HEAD)
_SEQUENCE: Final = _tag("sequence")
_TENANT: Final = _tag("tenantid")
_VERSION: Final = _tag("specversion") + _varint(len(SPECVERSION)) + SPECVERSION.encode()
_CURSOR, _EVENT = b"\x0a", b"\x12"
"""Tags of LoggedEvent's fields 1 and 2."""


def record(event: CloudEvent, published: datetime) -> bytes:
    """What is kept of an event. `published` is its time when it has none of its own. The event is left as it is."""
    rest = CloudEvent()
    rest.CopyFrom(event)
    for name in _HEAD:
        rest.ClearField(name)
    # Looking is cheaper than clearing, and they are seldom there.
    if event.specversion or event.tenantid or event.sequence:
        for own in _OWN:
            rest.ClearField(own)
    if not event.HasField("time"):
        rest.time.seconds, rest.time.nanos = int(published.timestamp()), published.microsecond * 1000
    head = b"".join(
        (_TYPE, _text(event.type), _SOURCE, _text(event.source), _SUBJECT, _text(event.subject)),
    )
    return head + rest.SerializeToString()


def identity(event: CloudEvent) -> bytes:
    """What makes two publications the same event: source and id, as 16 bytes. No two pairs are written alike, for the
    length of the first is a part of it."""
    source = event.source.encode()
    return sha256(b"%d:%b%b" % (len(source), source, event.id.encode())).digest()[:_DIGEST]


def entry(tenant: str, position: Position, cursor: str, kept: bytes) -> Entry:
    """The event that a record was made of, at its position. Raises ValueError for what is no record."""
    kind, at = _read(kept, 0, _TYPE)
    source, at = _read(kept, at, _SOURCE)
    subject, _ = _read(kept, at, _SUBJECT)
    event = b"".join(
        (kept, _VERSION, _TENANT, _text(tenant), _SEQUENCE, _text(str(position.sequence))),
    )
    logged = b"".join((_CURSOR, _text(cursor), _EVENT, _varint(len(event)), event))
    return Entry(tenant, position, cursor, kind, subject, source, logged)


def framed(logged: bytes) -> bytes:
    """A LoggedEvent as field 1 of a message: of ListEventsResponse and of SubscribeEventsResponse."""
    return b"\x0a" + _varint(len(logged)) + logged


def _text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


def _read(kept: bytes, at: int, tag: bytes) -> tuple[str, int]:
    """The text of a field that must be there, and where it ends."""
    if kept[at : at + 1] != tag:
        raise ValueError("a record of the event log begins with type, source and subject")
    at += 1
    size = shift = 0
    while True:
        byte = kept[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < _MORE:
            break
        shift += 7
    return kept[at : at + size].decode(), at + size
