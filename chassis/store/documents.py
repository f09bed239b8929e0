"""Messages as documents: proto field names to values, in both directions, compiled once for each message type.

| proto | value |
|---|---|
| bool, string, bytes, float, double, 32-bit and signed 64-bit integers | themselves |
| uint64, fixed64 | integer; ValueError from 2^63 on, where no store can hold it |
| enum | the value's name; a number without a name stays a number, a name without a number reads as zero |
| Timestamp | timestamp, in whole microseconds: finer digits are cut off |
| Duration | integer, microseconds |
| Struct, ListValue, Value | the JSON value (a Value of no kind is null); a list within a list as `{"$list": […]}` |
| wrappers (StringValue …) and other messages | map |
| repeated, map | array, map whose keys are text |

What has implicit presence is always written, so that the default can be searched for: zero, "", the enum's first name,
an empty array or map. What has explicit presence (`optional`, oneof, messages) is written only when it is set.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from chassis.store.encoding import EPOCH, microseconds
from chassis.store.port import Fields, Value

M = TypeVar("M", bound=Message)
_Encode = Callable[[Any], Any]
_SECOND: Final = 1_000_000
_LIST: Final = "$list"
_MAP: Final = "$map"
_LISTS: Final = frozenset({"google.protobuf.Value", "google.protobuf.ListValue"})
_SAME: Final[_Encode] = lambda value: value  # noqa: E731 - a value in the tables below


class MessageCodec(Generic[M]):
    """Compiled for one message type; make it once and keep it."""

    def __init__(self, message: type[M]) -> None:
        self._message = message
        self._plan = _Plan(message.DESCRIPTOR, {})

    def fields(self, message: M) -> dict[str, Value]:
        """The message's document. Raises ValueError for what a store cannot hold."""
        return self._plan.encode(message)

    def message(self, fields: Fields) -> M:
        """The message of a document. Names that the message does not have are left out: they are the store's own, or a
        newer release's."""
        made = self._message()
        self._plan.decode(fields, made)
        return made


class _Plan:
    """How one message type is written and read, field by field."""

    def __init__(self, descriptor: Any, made: dict[str, "_Plan"]) -> None:
        made[descriptor.full_name] = self
        self._fields = [_Field(field, made) for field in descriptor.fields]

    def encode(self, message: Message) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for field in self._fields:
            if not field.explicit or message.HasField(field.name):
                found[field.name] = field.encode(getattr(message, field.name))
        return found

    def decode(self, fields: Mapping[str, Any], into: Message) -> None:
        for field in self._fields:
            value = fields.get(field.name)
            if value is not None or (field.nullable and field.name in fields):
                field.decode(value, into)


class _Field:
    """One field: its name, whether its presence is explicit, and what turns its value into a document's."""

    def __init__(self, field: Any, made: dict[str, _Plan]) -> None:
        self.name = field.name
        self.explicit = field.has_presence
        entry = field.message_type
        self._repeated = field.is_repeated
        self._mapped = self._repeated and entry is not None and entry.GetOptions().map_entry
        if self._mapped:
            self._key = _MAP_KEYS.get(entry.fields_by_name["key"].cpp_type, int)
            field = entry.fields_by_name["value"]
        self._is_message = field.message_type is not None
        kind = field.message_type.full_name if self._is_message else ""
        self.nullable = kind == "google.protobuf.Value"
        self._one, self._set, self._plain = _converters(field, made)
        self._texts = self._mapped and self._key is str and self._one is _SAME
        if self._repeated and not self._mapped and kind in _LISTS:
            self._one, self._set = _item, _set_item

    def encode(self, value: Any) -> Value:
        if self._mapped:
            if self._texts:
                return dict(value)
            return {_key_text(key): self._one(entry) for key, entry in value.items()}
        if self._repeated:
            return [self._one(item) for item in value]
        found: Value = self._one(value)
        return found

    def decode(self, value: Any, into: Message) -> None:
        target = getattr(into, self.name) if self._repeated or self._is_message else None
        if self._mapped:
            self._decode_map(value, target)
        elif self._repeated and self._is_message:
            for item in value:
                self._set(item, target.add())  # type: ignore[union-attr]  # a repeated message field
        elif self._repeated:
            target.extend(self._plain(item) for item in value)  # type: ignore[union-attr]  # a repeated scalar field
        elif self._is_message:
            target.SetInParent()  # type: ignore[union-attr]  # a message field
            self._set(value, target)
        else:
            setattr(into, self.name, self._plain(value))

    def _decode_map(self, value: Mapping[str, Any], target: Any) -> None:
        if self._texts:
            target.update(value)
            return
        for key, entry in value.items():
            if self._is_message:
                self._set(entry, target[self._key(key)])
            else:
                target[self._key(key)] = self._plain(entry)


def _converters(field: FieldDescriptor, made: dict[str, _Plan]) -> tuple[_Encode, Callable[[Any, Any], None], _Encode]:
    """(value → document's, document's → into a message, document's → scalar)"""
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in _WELL_KNOWN:
            return (*_WELL_KNOWN[name], _SAME)
        plan = made.get(name) or _Plan(field.message_type, made)
        return plan.encode, plan.decode, _SAME
    if field.enum_type is not None:
        return (*_enum(field.enum_type),)
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        return _signed, _unset, _SAME
    if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return float, _unset, float
    return _SAME, _unset, _SAME


def _enum(enum: EnumDescriptor) -> tuple[_Encode, Callable[[Any, Any], None], _Encode]:
    names = {number: value.name for number, value in enum.values_by_number.items()}
    numbers = {name: value.number for name, value in enum.values_by_name.items()}
    return (
        lambda number: names.get(number, number),
        _unset,
        lambda value: value if isinstance(value, int) else numbers.get(value, 0),
    )


def _unset(value: Any, into: Any) -> None:
    raise TypeError(f"{type(into).__name__} is not set from {type(value).__name__}")


def _signed(value: int) -> int:
    if value >= 1 << 63:
        raise ValueError("an unsigned integer has more than 63 bits")
    return value


def _key_text(key: object) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


_MAP_KEYS: Final[dict[int, Callable[[str], Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: lambda text: text == "true",
}


def _timestamp(message: Any) -> datetime:
    return EPOCH + timedelta(0, message.seconds, message.nanos // 1000)


def _set_timestamp(value: datetime, into: Any) -> None:
    into.seconds, rest = divmod(microseconds(value), _SECOND)
    into.nanos = rest * 1000


def _duration(message: Any) -> int:
    # Towards zero in both parts, which have the same sign.
    return int(message.seconds * _SECOND + int(message.nanos / 1000))


def _set_duration(value: int, into: Any) -> None:
    seconds, rest = divmod(abs(value), _SECOND)
    sign = -1 if value < 0 else 1
    into.seconds, into.nanos = sign * seconds, sign * rest * 1000


def _struct(message: Any) -> dict[str, Any]:
    natural = {name: _natural(value) for name, value in message.fields.items()}
    return {_MAP: natural} if len(natural) == 1 and next(iter(natural)) in {_LIST, _MAP} else natural


def _set_struct(value: Mapping[str, Any], into: Any) -> None:
    value = value[_MAP] if len(value) == 1 and _MAP in value else value
    into.fields.clear()
    for name, item in value.items():
        _set_natural(item, into.fields[name])


def _list(message: Any) -> list[Any]:
    return [_item(item) for item in message.values]


def _set_list(values: Sequence[Any], into: Any) -> None:
    into.SetInParent()
    for item in values:
        _set_item(item, into.values.add())


def _item(message: Any) -> Any:
    """An element of a list, which cannot be a list itself."""
    natural = _list(message) if message.DESCRIPTOR.name == "ListValue" else _natural(message)
    return {_LIST: natural} if isinstance(natural, list) else natural


def _set_item(value: Any, into: Any) -> None:
    inner = value[_LIST] if isinstance(value, Mapping) and len(value) == 1 and _LIST in value else value
    (_set_list if into.DESCRIPTOR.name == "ListValue" else _set_natural)(inner, into)


def _natural(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return _list(message.list_value)
    return None if kind in {None, "null_value"} else getattr(message, kind)


def _set_natural(value: Any, into: Any) -> None:
    if value is None:
        into.null_value = 0
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, Mapping):
        into.struct_value.SetInParent()
        _set_struct(value, into.struct_value)
    elif isinstance(value, Sequence):
        _set_list(value, into.list_value)
    else:
        into.number_value = value


_WELL_KNOWN: Final[dict[str, tuple[_Encode, Callable[[Any, Any], None]]]] = {
    "google.protobuf.Timestamp": (_timestamp, _set_timestamp),
    "google.protobuf.Duration": (_duration, _set_duration),
    "google.protobuf.Struct": (_struct, _set_struct),
    "google.protobuf.ListValue": (_list, _set_list),
    "google.protobuf.Value": (_natural, _set_natural),
}
