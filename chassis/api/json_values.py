"""Whether a `google.protobuf.Value`, a Struct or a ListValue holds what the field rules allow, in a tenth of the time that
looking at each field takes: there are as many messages in them as values, and nearly all are right."""

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, Final


def _value(value: Any) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return _list(value.list_value)
    if kind == "number_value":
        return isfinite(value.number_value)
    return kind != "null_value" or not value.null_value


def _struct(struct: Any) -> bool:
    return all(key and _value(value) for key, value in struct.fields.items())


def _list(values: Any) -> bool:
    return all(map(_value, values.values))


SOUND: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(
    {"google.protobuf.Value": _value, "google.protobuf.Struct": _struct, "google.protobuf.ListValue": _list}
)
"""Name of the message → whether nothing in it breaks a rule: numbers are finite, keys are not empty, null is null."""


def unless(sound: Callable[[Any], bool], check: Callable[..., None]) -> Callable[..., None]:
    """`check`, of messages that are not sound."""

    def whole(message: Any, *more: Any) -> None:
        if not sound(message):
            check(message, *more)

    return whole
