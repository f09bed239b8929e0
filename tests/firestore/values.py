"""Values in Firestore's order, and field paths.

A value becomes a tuple that Python compares as Firestore compares the values: the type's rank first, then the value.
Source: "Value type ordering" and "Storage size calculations" of the product's documentation.
"""

import math
import re
from typing import Any, TypeAlias

from tests.firestore.wire import invalid

SortKey: TypeAlias = tuple[Any, ...]
Path: TypeAlias = tuple[str, ...]
"""The segments of a field path."""

NAME: Path = ("__name__",)
NULL: SortKey = (0,)
NAN: SortKey = (2, 0)
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def name_key(name: str) -> SortKey:
    """A document name as it sorts: segment by segment, by their UTF-8 bytes."""
    return (6, *(segment.encode() for segment in name.split("/")))


def sort_key(value: Any) -> SortKey:  # noqa: C901, PLR0911 - one return a type reads best
    """Null < bool < number (NaN first) < timestamp < string < bytes < reference < geopoint < array < map."""
    match value.WhichOneof("value_type"):
        case "null_value":
            return NULL
        case "boolean_value":
            return (1, value.boolean_value)
        case "integer_value":
            return (2, 1, value.integer_value)
        case "double_value":
            return NAN if math.isnan(value.double_value) else (2, 1, value.double_value)
        case "timestamp_value":
            return (3, value.timestamp_value.seconds, value.timestamp_value.nanos // 1000)
        case "string_value":
            return (4, value.string_value.encode())
        case "bytes_value":
            return (5, value.bytes_value)
        case "reference_value":
            return name_key(value.reference_value)
        case "geo_point_value":
            return (7, value.geo_point_value.latitude, value.geo_point_value.longitude)
        case "array_value":
            return (8, tuple(sort_key(item) for item in value.array_value.values))
        case "map_value":
            fields = value.map_value.fields
            return (9, tuple((name.encode(), sort_key(fields[name])) for name in sorted(fields, key=str.encode)))
        case kind:
            raise invalid(f"Unknown value type: {kind}")


def parse_path(text: str) -> Path:
    """`a.b` and `` a.`odd.name` `` as segments; a segment that is no plain identifier stands between backticks."""
    segments, at = [], 0
    while True:
        if text[at : at + 1] == "`":
            segment, at = _quoted(text, at + 1)
        else:
            plain = _SIMPLE.match(text, at)
            if plain is None:
                raise invalid(
                    f'Invalid property path "{text}". Unquoted property names must match [A-Za-z_][A-Za-z_0-9]*'
                )
            segment, at = plain.group(), plain.end()
        segments.append(segment)
        if at == len(text):
            return tuple(segments)
        if text[at] != ".":
            raise invalid(f'Invalid property path "{text}".')
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    letters: list[str] = []
    while at < len(text):
        if text[at] == "`":
            return "".join(letters), at + 1
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        letters.append(text[at])
        at += 1
    raise invalid(f'Invalid property path "{text}": a backtick is not closed.')


def lookup(fields: Any, path: Path) -> Any | None:
    """The value at `path`, or None where a segment is missing or not a map."""
    value = None
    for segment in path:
        if segment not in fields:
            return None
        value = fields[segment]
        fields = value.map_value.fields
    return value


def truncate(fields: Any) -> None:
    """Round timestamps down to microseconds, in place, at every depth: the resolution that is stored."""
    for value in fields.values():
        _truncate(value)


def _truncate(value: Any) -> None:
    match value.WhichOneof("value_type"):
        case "timestamp_value":
            value.timestamp_value.nanos -= value.timestamp_value.nanos % 1000
        case "array_value":
            for item in value.array_value.values:
                _truncate(item)
        case "map_value":
            truncate(value.map_value.fields)
