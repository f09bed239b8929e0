"""Field rules (`bas.annotations.v2.rules`) and field behaviour (AIP-203), compiled from descriptors into closures.

What holds without a rule is written at `FieldRules` in annotations.proto. Nothing is changed: text that is not NFC is
refused, OUTPUT_ONLY fields are skipped, unknown fields are left alone. Paths are proto names:
`devices[3].labels["site"]`.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from google.api import field_behavior_pb2 as behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from bas.annotations.v2 import annotations_pb2 as annotations
from chassis.api.formats import Lengths, text_check
from chassis.api.json_values import SOUND, unless
from chassis.errors import Violation, invalid_argument

MAX_VIOLATIONS: Final = 20
"""More are not looked for."""

Validator: TypeAlias = Callable[[Message], None]

_Check: TypeAlias = Callable[[Any, str, list[Violation]], None]
"""Of a message, with the path that leads to its fields (`device.`): appends what is wrong."""
_Leaf: TypeAlias = Callable[[Any], str | None]
"""Of one value: None, or what is accepted."""

_SHOWN_KEY: Final = 64
_TIMESTAMP_SECONDS: Final = (-62135596800, 253402300799)
_DURATION_SECONDS: Final = 315576000000
_NANOS: Final = 999_999_999
_MASK_PATH: Final = 256
_UPDATE_MASK: Final = "update_mask"


def compile_validator(descriptor: Descriptor) -> Validator:
    """A function that raises INVALID_ARGUMENT with up to 20 violations for a message that breaks its rules.

    Compile once for each request type. Raises ValueError for a rule that this release does not know.
    """
    check = _Compiler().request(descriptor)

    def validate(message: Message) -> None:
        found: list[Violation] = []
        check(message, "", found)
        if found:
            raise invalid_argument(*found[:MAX_VIOLATIONS])

    return validate


def has_behavior(field: FieldDescriptor, wanted: int) -> bool:
    """Whether the field is annotated with that `google.api.FieldBehavior`."""
    return wanted in field.GetOptions().Extensions[behavior.field_behavior]


def rules_of(field: FieldDescriptor) -> annotations.FieldRules:
    rules: annotations.FieldRules = field.GetOptions().Extensions[annotations.rules]
    return rules


class _Compiler:
    """Compiles each message type once; a type that contains itself finds itself in `_done` when it runs."""

    def __init__(self) -> None:
        # Descriptors of fields are Any here: `message_type` and `enum_type` are None or not by what was asked before.
        self._done: dict[str, _Check] = {}
        self._in_json = False

    def request(self, descriptor: Any) -> _Check:
        """As `message`; of an update, which is a request with an `update_mask`, the resource has rules of its own."""
        if _UPDATE_MASK not in descriptor.fields_by_name:
            return self.message(descriptor)
        fields = [field for field in descriptor.fields if not has_behavior(field, behavior.OUTPUT_ONLY)]
        checks = [self._updated(field) if _is_resource(field) else self._field(field) for field in fields]
        return _all([check for check in checks if check])

    def _updated(self, field: Any) -> _Check:
        """The resource of an update: its IDENTIFIER must be set, a REQUIRED field only where the mask names it."""
        parts = [part for part in field.message_type.fields if not has_behavior(part, behavior.OUTPUT_ONLY)]
        checks = [self._field(part, required=has_behavior(part, behavior.IDENTIFIER)) for part in parts]
        resource = self._nested(
            field, required=has_behavior(field, behavior.REQUIRED), check=_all([check for check in checks if check])
        )
        kept = [part for part in parts if has_behavior(part, behavior.REQUIRED)]

        def updated(message: Any, prefix: str, found: list[Violation]) -> None:
            resource(message, prefix, found)
            if not kept or not message.HasField(field.name):
                return
            given, named = getattr(message, field.name), set(message.update_mask.paths)
            cleared = [part.name for part in kept if named & {"*", part.name} and not _is_set(given, part)]
            found += [
                Violation(f"{prefix}{field.name}.{name}", "is required: it cannot be cleared") for name in cleared
            ]

        return updated

    def message(self, descriptor: Any) -> _Check:
        """The check of a message. One that holds JSON is looked at as a whole, and field by field where that finds it wrong."""
        sound = None if self._in_json else SOUND.get(descriptor.full_name)
        if sound is None:
            return self._by_fields(descriptor)
        self._in_json = True
        check = self._by_fields(descriptor)
        self._in_json = False
        return unless(sound, check)

    def _by_fields(self, descriptor: Any) -> _Check:
        name = descriptor.full_name
        if name in self._done:
            return self._done[name]

        def again(message: Any, prefix: str, found: list[Violation]) -> None:
            self._done[name](message, prefix, found)

        self._done[name] = again
        checks = [self._field(field) for field in descriptor.fields if not has_behavior(field, behavior.OUTPUT_ONLY)]
        self._done[name] = _all([check for check in checks if check])
        return self._done[name]

    def _field(self, field: FieldDescriptor, *, required: bool | None = None) -> _Check | None:
        """`required`: instead of what the field's behaviour says."""
        if required is None:
            required = has_behavior(field, behavior.REQUIRED)
        if _is_map(field):
            return self._map(field, required=required)
        if field.is_repeated:
            return self._repeated(field, required=required)
        if field.message_type and field.message_type.full_name not in _WELL_KNOWN:
            return self._nested(field, required=required)
        return _single(field, _leaf(field, rules_of(field)), required=required)

    def _nested(self, field: FieldDescriptor, *, required: bool, check: _Check | None = None) -> _Check:
        name, check = field.name, check or self.message(field.message_type)
        step, most_bytes = f"{name}.", rules_of(field).max_bytes

        def nested(message: Any, prefix: str, found: list[Violation]) -> None:
            if not message.HasField(name):
                if required:
                    found.append(Violation(prefix + name, "is required"))
                return
            value = getattr(message, name)
            if most_bytes and value.ByteSize() > most_bytes:
                found.append(Violation(prefix + name, f"must have at most {most_bytes} bytes"))
                return
            check(value, prefix + step, found)

        return nested

    def _repeated(self, field: FieldDescriptor, *, required: bool) -> _Check:
        name, rules = field.name, rules_of(field)
        amount = _amount(rules, "items", required=required)
        item = None if rules.each_by_itself else self._item(field, rules)
        unique = rules.unique_items

        def repeated(message: Any, prefix: str, found: list[Violation]) -> None:
            items = getattr(message, name)
            problem = amount(len(items))
            if problem:
                found.append(Violation(prefix + name, problem))
            if not items or problem or item is None:
                return
            if unique and len(set(items)) != len(items):
                found.append(Violation(prefix + name, "must not have the same item twice"))
            for index, value in enumerate(items):
                if len(found) >= MAX_VIOLATIONS:
                    return
                item(value, f"{prefix}{name}[{index}]", found)

        return repeated

    def _map(self, field: Any, *, required: bool) -> _Check:
        name, rules = field.name, rules_of(field)
        key_field, value_field = (field.message_type.fields_by_name[part] for part in ("key", "value"))
        amount = _amount(rules, "entries", required=required)
        key_check = _key(key_field, rules)
        item = self._item(value_field, rules, most_bytes=rules.value_max_bytes)

        def entries(message: Any, prefix: str, found: list[Violation]) -> None:
            content = getattr(message, name)
            problem = amount(len(content))
            if problem:
                found.append(Violation(prefix + name, problem))
            if not content or problem:
                return
            for key in content:
                if len(found) >= MAX_VIOLATIONS:
                    return
                problem, value = key_check(key), content[key]
                if problem:
                    found.append(Violation(f"{prefix}{name}[{_shown(key)}]", f"the key {problem}"))
                item(value, prefix + name, found, key)

        return entries

    def _item(self, field: FieldDescriptor, rules: annotations.FieldRules, *, most_bytes: int = 0) -> "_Item":
        """The check of one item or map value. For a map the path is that of the map and `key` completes it: paths of
        entries are only put together for entries that are wrong, or are messages."""
        limit = most_bytes or rules.max_bytes
        if field.message_type and field.message_type.full_name not in _WELL_KNOWN:
            check = self.message(field.message_type)

            def message_item(value: Any, path: str, found: list[Violation], key: Any = None) -> None:
                full = path if key is None else f"{path}[{_shown(key)}]"
                if limit and value.ByteSize() > limit:
                    found.append(Violation(full, f"must have at most {limit} bytes"))
                    return
                check(value, full + ".", found)

            return message_item
        leaf = _leaf(field, rules, most_bytes=limit)

        def scalar_item(value: Any, path: str, found: list[Violation], key: Any = None) -> None:
            problem = leaf(value)
            if problem:
                found.append(Violation(path if key is None else f"{path}[{_shown(key)}]", problem))

        return scalar_item


_Item: TypeAlias = Callable[..., None]


def _all(checks: Sequence[_Check]) -> _Check:
    if len(checks) == 1:
        return checks[0]

    def every(message: Any, prefix: str, found: list[Violation]) -> None:
        for check in checks:
            check(message, prefix, found)

    return every


def _single(field: FieldDescriptor, leaf: _Leaf, *, required: bool) -> _Check:
    name = field.name
    if field.has_presence:

        def optional(message: Any, prefix: str, found: list[Violation]) -> None:
            if message.HasField(name):
                problem = leaf(getattr(message, name))
                if problem:
                    found.append(Violation(prefix + name, problem))
            elif required:
                found.append(Violation(prefix + name, "is required"))

        return optional

    def plain(message: Any, prefix: str, found: list[Violation]) -> None:
        value = getattr(message, name)
        if value:
            problem = leaf(value)
            if problem:
                found.append(Violation(prefix + name, problem))
        elif required:
            found.append(Violation(prefix + name, "is required"))

    return plain


def _leaf(field: FieldDescriptor, rules: annotations.FieldRules, *, most_bytes: int = 0) -> _Leaf:
    if field.message_type:
        return _WELL_KNOWN[field.message_type.full_name](rules)
    kind = field.cpp_type
    if field.enum_type:
        return _enum(field, rules)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(rules, most_bytes or rules.max_bytes)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        lengths = Lengths(rules.min_length, rules.max_length, most_bytes or rules.max_bytes)
        return text_check(rules.format, lengths)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return lambda _: None
    return _number(rules, finite=kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT))


def _enum(field: Any, rules: annotations.FieldRules) -> _Leaf:
    known = {value.number: value.name for value in field.enum_type.values}
    if rules.reject_unspecified:
        del known[0]
    accepted = "must be one of " + ", ".join(known.values())
    return lambda value: None if value in known else accepted


def _bytes(rules: annotations.FieldRules, most_bytes: int) -> _Leaf:
    least = rules.min_length
    bounds = [bound for bound in (rules.max_length, most_bytes) if bound]
    most = min(bounds) if bounds else math.inf

    def check(value: bytes) -> str | None:
        if len(value) < least:
            return f"must have at least {least} bytes"
        return f"must have at most {most} bytes" if len(value) > most else None

    return check


def _number(rules: annotations.FieldRules, *, finite: bool) -> _Leaf:
    low = rules.minimum if rules.HasField("minimum") else -math.inf
    high = rules.maximum if rules.HasField("maximum") else math.inf
    if low == -math.inf and high == math.inf:
        return (lambda value: None if math.isfinite(value) else "must be a finite number") if finite else lambda _: None

    def check(value: float) -> str | None:
        if finite and not math.isfinite(value):
            return "must be a finite number"
        if value < low:
            return f"must be at least {_plain(low)}"
        return f"must be at most {_plain(high)}" if value > high else None

    return check


def _plain(bound: float) -> str:
    return str(int(bound)) if bound.is_integer() else str(bound)


def _timestamp(_: annotations.FieldRules) -> _Leaf:
    low, high = _TIMESTAMP_SECONDS

    def check(value: Any) -> str | None:
        if low <= value.seconds <= high and 0 <= value.nanos <= _NANOS:
            return None
        return "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z"

    return check


def _duration(rules: annotations.FieldRules) -> _Leaf:
    low = rules.min_seconds if rules.HasField("min_seconds") else -_DURATION_SECONDS
    high = rules.max_seconds if rules.HasField("max_seconds") else _DURATION_SECONDS

    def check(value: Any) -> str | None:
        seconds, nanos = value.seconds, value.nanos
        if abs(nanos) > _NANOS or seconds * nanos < 0 or abs(seconds) > _DURATION_SECONDS:
            return "must be a duration: seconds and nanos of one sign, at most 10 000 years"
        if (seconds, nanos) < (low, 0) or (seconds, nanos) > (high, 0):
            return f"must be from {low}s to {high}s"
        return None

    return check


def _field_mask(rules: annotations.FieldRules) -> _Leaf:
    most = rules.max_items or math.inf
    path_check = text_check(annotations.FORMAT_TEXT, Lengths(1, _MASK_PATH))

    def check(value: Any) -> str | None:
        if len(value.paths) > most:
            return f"must have at most {most} paths"
        for path in value.paths:
            problem = path_check(path)
            if problem:
                return f"each path {problem}"
        return None

    return check


_WELL_KNOWN: Final[dict[str, Callable[[annotations.FieldRules], _Leaf]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _field_mask,
}


def _amount(rules: annotations.FieldRules, what: str, *, required: bool) -> Callable[[int], str | None]:
    least, most = rules.min_items, rules.max_items

    def check(count: int) -> str | None:
        if count == 0:
            return "is required" if required else None
        if count < least:
            return f"must have at least {least} {what}"
        return f"must have at most {most} {what}" if 0 < most < count else None

    return check


def _key(field: FieldDescriptor, rules: annotations.FieldRules) -> _Leaf:
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return lambda _: None
    return text_check(rules.key_format, Lengths(1, rules.key_max_length))


def _is_resource(field: Any) -> bool:
    inner = None if field.is_repeated else field.message_type
    return inner is not None and any(has_behavior(part, behavior.IDENTIFIER) for part in inner.fields)


def _is_set(message: Any, field: FieldDescriptor) -> bool:
    return bool(message.HasField(field.name) if field.has_presence else getattr(message, field.name))


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _shown(key: Any) -> str:
    """A map key as a path shows it: cut, and with what cannot be printed escaped."""
    if not isinstance(key, str):
        return str(key).lower()
    cut = key if len(key) <= _SHOWN_KEY else key[:_SHOWN_KEY] + "…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())
