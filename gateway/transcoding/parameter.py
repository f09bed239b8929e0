"""A path variable or query parameter: text to the JSON value of its field.

Ranges, base64, Timestamp and Duration syntax and enum names are the codec's business, as for a body; what is decided
here is only what text cannot say by itself: whether `17` is a number.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from gateway.transcoding.schema import Field, Kind

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_SNAKE: Final = re.compile(r"_([a-z0-9])")

TEXT_MESSAGES: Final[Mapping[str, str]] = {
    "google.protobuf.Timestamp": "an RFC 3339 time such as 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a duration such as 3.5s",
    "google.protobuf.FieldMask": "a comma-separated list of field names",
}
"""Messages that are one string in JSON, and how it is written."""

WRAPPERS: Final[Mapping[str, Kind]] = {
    "google.protobuf.StringValue": Kind.STRING,
    "google.protobuf.BytesValue": Kind.BYTES,
    "google.protobuf.BoolValue": Kind.BOOL,
    "google.protobuf.Int32Value": Kind.INT32,
    "google.protobuf.UInt32Value": Kind.UINT32,
    "google.protobuf.Int64Value": Kind.INT64,
    "google.protobuf.UInt64Value": Kind.UINT64,
    "google.protobuf.FloatValue": Kind.FLOAT,
    "google.protobuf.DoubleValue": Kind.DOUBLE,
}

EXPECTED: Final[Mapping[Kind, str]] = {
    Kind.STRING: "a string",
    Kind.BYTES: "base64 text",
    Kind.BOOL: "true or false",
    Kind.INT32: "an integer of 32 bits",
    Kind.UINT32: "an integer of 32 bits, not negative",
    Kind.INT64: "an integer of 64 bits",
    Kind.UINT64: "an integer of 64 bits, not negative",
    Kind.FLOAT: "a number of single precision",
    Kind.DOUBLE: "a number",
    Kind.ENUM: "the name of an enum value, in full, or its number",
    Kind.MESSAGE: "an object",
}
"""What a value of each kind looks like, for messages."""


def scalar_kind(field: Field) -> Kind | None:
    """The kind of one value of the field as text; None when it cannot be a parameter by itself."""
    if field.kind is not Kind.MESSAGE:
        return field.kind
    if field.type_name in TEXT_MESSAGES:
        return Kind.STRING
    return WRAPPERS.get(field.type_name)


def json_value(field: Field, text: str) -> object:
    """The JSON value that `text` means for one value of the field. Raises ValueError; the range is not checked yet."""
    if field.type_name == "google.protobuf.FieldMask":
        return _SNAKE.sub(lambda match: match[1].upper(), text)
    kind = scalar_kind(field)
    read = _READERS.get(kind) if kind else None
    return text if read is None else read(text)


def expected(field: Field) -> str:
    """How a value of the field is written, for messages."""
    return TEXT_MESSAGES.get(field.type_name) or EXPECTED[scalar_kind(field) or field.kind]


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _integer(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(text)
    return int(text)


def _float(text: str) -> float | str:
    if text in _NOT_FINITE:
        return text
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    return float(text)


def _enum(text: str) -> int | str:
    return int(text) if _INTEGER.fullmatch(text) else text


_READERS: Final[Mapping[Kind, Callable[[str], object]]] = {
    Kind.BOOL: _boolean,
    Kind.INT32: _integer,
    Kind.UINT32: _integer,
    Kind.INT64: _integer,
    Kind.UINT64: _integer,
    Kind.FLOAT: _float,
    Kind.DOUBLE: _float,
    Kind.ENUM: _enum,
}
