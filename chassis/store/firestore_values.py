"""Documents as Firestore's protobuf messages, and back.

The same walk builds the message, checks that each value is one of the port's and adds up the size, by the rules of
`chassis.store.values`: what one engine refuses, the other does, too.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.cloud.firestore_v1.types import document as types

from chassis.store.encoding import EPOCH, microseconds
from chassis.store.firestore_names import COMMIT, ID, decode_field, encode_field
from chassis.store.port import DocumentTooLarge, Fields, Key, Value
from chassis.store.values import MAX_DEPTH, MAX_DOCUMENT

PbDocument: Final[Any] = types.Document.pb()
PbValue: Final[Any] = types.Value.pb()

MARKER: Final = len(COMMIT) + 1 + 16
"""Bytes that the commit's id adds to a document."""
_INT64: Final = 1 << 63
_OVERHEAD: Final = 32 + 16 + len("tenants") + 1
_SECOND: Final = 1_000_000


def fill(target: Any, key: Key, fields: Fields) -> int:
    """Write the fields into a Document; returns its size in bytes. Raises ValueError and DocumentTooLarge."""
    if "" in fields:
        raise ValueError("a field has no name")
    size = _OVERHEAD + _text(key.tenant) + _text(key.collection) + _text(key.id) + _fill_map(target.fields, fields, 0)
    if size > MAX_DOCUMENT:
        raise DocumentTooLarge
    return size


def write_value(target: Any, value: Value) -> None:
    """Set a Value, as in a filter or a cursor. Raises ValueError for what no engine can hold."""
    _fill_value(target, value, 0)


def read_fields(document: Any) -> dict[str, Any]:
    """The fields of a Document, without the reserved ones."""
    found = {}
    for name, value in document.fields.items():
        if name[:1] == "_" and name in {COMMIT, ID}:
            continue
        found[decode_field(name) if name[-1] == "!" else name] = _read(value)
    return found


def stamp(moment: Any) -> int:
    """A protobuf Timestamp in microseconds."""
    return int(moment.seconds) * _SECOND + int(moment.nanos) // 1000


def set_stamp(target: Any, since: int) -> None:
    target.seconds, rest = divmod(since, _SECOND)
    target.nanos = rest * 1000


def moment_of(since: int) -> datetime:
    return EPOCH + timedelta(microseconds=since)


def _text(value: str) -> int:
    return len(value) + 1 if value.isascii() else len(value.encode()) + 1


def _fill_map(target: Any, fields: Mapping[str, Value], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH}")
    size = 0
    for name, value in fields.items():
        size += _text(name) + _fill_value(target[encode_field(name)], value, depth)
    return size


def _fill_value(target: Any, value: Value, depth: int) -> int:  # noqa: C901, PLR0911 - one return a type reads best
    if isinstance(value, str):
        target.string_value = value
        return _text(value)
    if value is None:
        target.null_value = 0
        return 1
    if isinstance(value, bool):
        target.boolean_value = value
        return 1
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer has more than 64 bits")
        target.integer_value = value
        return 8
    if isinstance(value, float):
        target.double_value = value
        return 8
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a timestamp has no time zone")
        target.timestamp_value.SetInParent()
        set_stamp(target.timestamp_value, microseconds(value))
        return 8
    if isinstance(value, bytes):
        target.bytes_value = value
        return len(value)
    if isinstance(value, Mapping):
        target.map_value.SetInParent()
        return _fill_map(target.map_value.fields, value, depth + 1)
    if isinstance(value, Sequence):
        target.array_value.SetInParent()
        return _fill_array(target.array_value.values, value, depth + 1)
    raise ValueError(f"{type(value).__name__} is not a value of the store")


def _fill_array(target: Any, values: Sequence[Value], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH}")
    size = 0
    for value in values:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            raise ValueError("an array cannot hold an array: wrap the inner one in a map")  # noqa: TRY004
        size += _fill_value(target.add(), value, depth)
    return size


def _read(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    if kind == "map_value":
        held = value.map_value.fields  # in no order of its own
        return {decode_field(name) if name[-1:] == "!" else name: _read(held[name]) for name in sorted(held)}
    if kind == "array_value":
        return [_read(item) for item in value.array_value.values]
    if kind == "timestamp_value":
        return moment_of(stamp(value.timestamp_value))
    return None if kind == "null_value" or kind is None else getattr(value, kind)
