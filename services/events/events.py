"""What an event must be to be published: what CloudEvents 1.0 asks beyond the rules that stand at the fields."""

import re
from collections.abc import Sequence
from typing import Final

from bas.annotations.v2 import annotations_pb2 as annotations
from bas.events.v2.events_pb2 import CloudEvent
from chassis.api.formats import Lengths, text_check
from chassis.api.validation import MAX_VIOLATIONS
from chassis.errors import Violation, invalid_argument
from services.events.records import SPECVERSION

EVENT_BYTES: Final = 128 * 1024
"""The whole of an event, serialized: data, attributes and extensions."""

RESERVED: Final = frozenset(CloudEvent.DESCRIPTOR.fields_by_name)
"""Names that an extension must not have: it would hide an attribute where both are written side by side."""

_INT32: Final = range(-(2**31), 2**31)
_VALUE_BYTES: Final = 1024
_REFERENCE: Final = re.compile(
    r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(?:#(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)?"
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;.*)?")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_text: Final = text_check(annotations.FORMAT_TEXT, Lengths(0, 0, _VALUE_BYTES))


def check(events: Sequence[CloudEvent], field: str = "events") -> None:
    """Raises INVALID_ARGUMENT that names what is wrong, `events[3].source`. The rules at the fields hold already."""
    found: list[Violation] = []
    for index, event in enumerate(events):
        found += [Violation(f"{field}[{index}]{name}", problem) for name, problem in _problems(event)]
        if len(found) >= MAX_VIOLATIONS:
            break
    if found:
        raise invalid_argument(*found[:MAX_VIOLATIONS])


def _problems(event: CloudEvent) -> list[tuple[str, str]]:
    found = []
    if event.specversion and event.specversion != SPECVERSION:
        found.append((".specversion", f"must be {SPECVERSION}"))
    if not _REFERENCE.fullmatch(event.source):
        found.append((".source", "must be a URI-reference (RFC 3986), such as /bas/devices"))
    if event.dataschema and not (_SCHEME.match(event.dataschema) and _REFERENCE.fullmatch(event.dataschema)):
        found.append((".dataschema", "must be a URI (RFC 3986) with a scheme"))
    if event.datacontenttype and not _MEDIA_TYPE.fullmatch(event.datacontenttype):
        found.append((".datacontenttype", "must be a media type (RFC 2046), such as application/json"))
    if event.traceparent and not _TRACEPARENT.fullmatch(event.traceparent):
        found.append((".traceparent", "must be a traceparent as in W3C Trace Context"))
    if event.data_base64 and event.HasField("data"):
        found.append((".data_base64", "must not be there beside data"))
    for name in event.extensions:
        problem = _extension(name, event)
        if problem:
            found.append((f'.extensions["{name}"]', problem))
    if event.ByteSize() > EVENT_BYTES:
        found.append(("", f"must have at most {EVENT_BYTES} bytes in all"))
    return found


def _extension(name: str, event: CloudEvent) -> str | None:
    if name in RESERVED:
        return "must not have the name of an attribute"
    value = event.extensions[name]
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return _text(value.string_value)
    if kind == "number_value":
        number = value.number_value
        return None if number.is_integer() and int(number) in _INT32 else "must be an integer of 32 bits"
    return None if kind == "bool_value" else "must be a string, an integer or a boolean"
