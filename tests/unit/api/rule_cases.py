"""Reads the field rules from the descriptors and makes, for each, a request at the limit and one beyond it.

The limits are written here a second time, from the words of annotations.proto, on purpose: `chassis.api.validation` is
held to the words, not to itself.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.api import field_behavior_pb2 as behavior
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import bas
from bas.annotations.v2 import annotations_pb2 as annotations

DEEPEST = 4
TIMES = {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"}

BAD_TEXT: dict[int, list[str]] = {
    annotations.FORMAT_UNSPECIFIED: [],
    annotations.FORMAT_ID: ["a/b", "a b", "é", "a\n", "a\x00", "a" * 129],
    annotations.FORMAT_TEXT: ["a\x00", "a\x1f", "\n", "\x7f", "a\x85", "e\u0301"],
    annotations.FORMAT_EMAIL: ["ada", "@b", "a@", "a@b@c", "a b@c", "a\n@c", "e\u0301@c", "a" * 253 + "@b"],
    annotations.FORMAT_TOKEN: ["a b", "=", "a=b", "a\n", "é"],
    annotations.FORMAT_SCOPE: ["devices", "devices:", "nobody:read", "devices:own", "devices:read "],
    annotations.FORMAT_IP: ["1.2.3", "1.2.3.4.5", "localhost", "fe80::1%eth0", "1.2.3.4/8"],
    annotations.FORMAT_FIELDS: ["a;b", "a\n", "é", "a-b"],
    annotations.FORMAT_ATTRIBUTE: ["Type", "a_b", "a b", "é"],
}
GOOD_TEXT: dict[int, list[str]] = {
    annotations.FORMAT_UNSPECIFIED: ["a\x00"],
    annotations.FORMAT_ID: ["aZ09._~-"],
    annotations.FORMAT_TEXT: ["Käse 7 🌀", "\u00e9"],
    annotations.FORMAT_EMAIL: ["ada@example.com", "ü@b"],
    annotations.FORMAT_TOKEN: ["aZ09._~+/-==", "a"],
    annotations.FORMAT_SCOPE: ["devices:read", "events:admin"],
    annotations.FORMAT_IP: ["10.0.0.1", "::1", "2001:db8::1"],
    annotations.FORMAT_FIELDS: ["create_time desc, a.b"],
    annotations.FORMAT_ATTRIBUTE: ["partitionkey1"],
}


@dataclass(frozen=True)
class Case:
    """One request: `field` is the path that a refusal names, None where the request is well."""

    label: str
    request: Message
    field: str | None


def request_types() -> list[Descriptor]:
    """Every message of the pool that is the input of an RPC."""
    found: dict[str, Descriptor] = {}
    for module in pkgutil.walk_packages(bas.__path__, "bas."):
        if module.name.endswith("_service_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            for service in file.services_by_name.values():
                for method in service.methods:
                    found[method.input_type.full_name] = method.input_type
    return list(found.values())


def baseline(descriptor: Any, depth: int = 0) -> Message:
    """The least message that its rules accept: the required fields."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if _has(field, behavior.REQUIRED) and depth < DEEPEST:
            fill(message, field, depth)
    for resource in updated(descriptor):
        inner = getattr(message, resource.name)
        for part in resource.message_type.fields:
            if _has(part, behavior.IDENTIFIER):
                fill(inner, part, depth)
    return message


def updated(descriptor: Any) -> list[Any]:
    """The resource field of an update: a request with an update_mask."""
    if "update_mask" not in descriptor.fields_by_name:
        return []
    nested = (field for field in descriptor.fields if field.message_type and not field.is_repeated)
    return [field for field in nested if any(_has(part, behavior.IDENTIFIER) for part in field.message_type.fields)]


def fill(message: Any, field: Any, depth: int = 0, count: int = 1) -> None:
    """Give the field `count` accepted values."""
    rules, name = _rules(field), field.name
    if _is_map(field):
        value_field = field.message_type.fields_by_name["value"]
        for index in range(max(count, rules.min_items)):
            key = good_text(rules.key_format, rules.key_max_length, index) if _is_text(_key(field)) else index
            put(getattr(message, name), key, accepted(value_field, rules, depth))
    elif field.is_repeated:
        for index in range(max(count, rules.min_items)):
            append(getattr(message, name), accepted(field, rules, depth, index))
    elif field.message_type:
        getattr(message, name).CopyFrom(accepted(field, rules, depth))
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, accepted(field, rules, depth))


def accepted(field: Any, rules: annotations.FieldRules, depth: int = 0, index: int = 0) -> Any:  # noqa: PLR0911 - one line a type
    if field.message_type:
        if field.message_type.full_name == "google.protobuf.Duration":
            return GetMessageClass(field.message_type)(seconds=rules.min_seconds or rules.max_seconds)
        return baseline(field.message_type, depth + 1)
    if field.enum_type:
        return next(value.number for value in field.enum_type.values if value.number)
    if _is_text(field):
        return good_text(rules.format, rules.max_length, index, rules.min_length)
    if field.type == field.TYPE_BYTES:
        return b"x" * max(1, rules.min_length)
    if field.type == field.TYPE_BOOL:
        return True
    return type(field.default_value)(rules.minimum or min(1, rules.maximum or 1))


def good_text(wanted: int, longest: int, index: int = 0, least: int = 0) -> str:
    """Of items that must differ, each index gives another."""
    if wanted == annotations.FORMAT_SCOPE:
        return [
            f"{s}:{a}" for s in ("sessions", "users", "devices", "audit", "events") for a in ("read", "write", "admin")
        ][index % 15]
    if wanted == annotations.FORMAT_IP:
        return f"10.0.0.{index}"
    if wanted == annotations.FORMAT_EMAIL:
        return f"a{index}@example.com"
    return f"{'a' * max(0, least - 4)}a{index:03}"[: longest or None]


def cases(descriptor: Descriptor) -> Iterator[Case]:
    """Every rule of every field that can be reached from the request, at the limit and beyond."""
    yield Case("the least request", baseline(descriptor), None)
    resources = {f"{field.name}." for field in updated(descriptor)}
    for path, parent, field in reachable(descriptor):
        wanted = behavior.IDENTIFIER if path in resources else behavior.REQUIRED
        for label, change, name in changes(field, required=_has(field, wanted)):
            request: Message = baseline(descriptor)
            change(parent(request))
            yield Case(f"{path}{field.name} {label}", request, None if name is None else path + name)


Parent = Callable[[Any], Any]
Change = tuple[str, Callable[[Any], None], str | None]


def reachable(descriptor: Any, path: str = "", depth: int = 0, parent: Parent = lambda root: root) -> Iterator[Any]:
    """(path prefix, how to get there, making it if need be, field) for each input field."""
    for field in descriptor.fields:
        if _has(field, behavior.OUTPUT_ONLY):
            continue
        yield path, parent, field
        value = field.message_type.fields_by_name["value"] if _is_map(field) else field
        inner = value.message_type
        if inner is None or inner.full_name in TIMES or depth == DEEPEST or not inner.full_name.startswith("bas."):
            continue
        if _rules(field).each_by_itself:
            continue
        if _is_map(field):
            yield from reachable(inner, f'{path}{field.name}["k"].', depth + 1, _into_map(parent, field.name, inner))
        elif field.is_repeated:
            yield from reachable(inner, f"{path}{field.name}[0].", depth + 1, _into_list(parent, field.name, inner))
        else:
            yield from reachable(inner, f"{path}{field.name}.", depth + 1, _into(parent, field.name, inner))


def _into(parent: Parent, name: str, inner: Any) -> Parent:
    def step(root: Any) -> Any:
        above = parent(root)
        if not above.HasField(name):
            getattr(above, name).CopyFrom(baseline(inner))
            getattr(above, name).SetInParent()
        return getattr(above, name)

    return step


def _into_list(parent: Parent, name: str, inner: Any) -> Parent:
    def step(root: Any) -> Any:
        items = getattr(parent(root), name)
        if not items:
            items.append(baseline(inner))
        return items[0]

    return step


def _into_map(parent: Parent, name: str, inner: Any) -> Parent:
    def step(root: Any) -> Any:
        entries = getattr(parent(root), name)
        entries.clear()
        entries["k"].CopyFrom(baseline(inner))
        return entries["k"]

    return step


def changes(field: Any, *, required: bool) -> Iterator[Change]:
    if required:
        yield "left out", lambda parent: parent.ClearField(field.name), field.name
    rules = _rules(field)
    if _is_map(field):
        yield from _amounts(field, rules)
        yield from _map_changes(field, rules)
    elif field.is_repeated:
        yield from _amounts(field, rules)
        yield from _list_changes(field, rules)
    else:
        for label, value, well in values(field, rules):
            yield label, _setter(field, value), None if well else field.name


def _amounts(field: Any, rules: annotations.FieldRules) -> Iterator[Change]:
    def amount(count: int) -> Callable[[Any], None]:
        def change(parent: Any) -> None:
            parent.ClearField(field.name)
            fill(parent, field, count=count)

        return change

    if rules.max_items:
        distinct = rules.max_items <= 15 or rules.format != annotations.FORMAT_SCOPE
        if distinct:
            yield "as many as may be", amount(rules.max_items), None
        yield "one too many", amount(rules.max_items + 1), field.name


def _list_changes(field: Any, rules: annotations.FieldRules) -> Iterator[Change]:
    def items(*of: Any) -> Callable[[Any], None]:
        def change(parent: Any) -> None:
            parent.ClearField(field.name)
            for value in of:
                append(getattr(parent, field.name), value)

        return change

    filler = [accepted(field, rules, index=900 + index) for index in range(max(0, rules.min_items - 1))]
    for label, value, well in values(field, rules):
        yield f"item {label}", items(value, *filler), None if well else f"{field.name}[0]"
    if rules.unique_items:
        twice = accepted(field, rules)
        yield "the same twice", items(twice, twice), field.name
    if rules.min_items > 1:
        yield "one too few", items(*filler), field.name


def _map_changes(field: Any, rules: annotations.FieldRules) -> Iterator[Change]:
    value_field = field.message_type.fields_by_name["value"]

    def entry(key: Any, value: Any) -> Callable[[Any], None]:
        def change(parent: Any) -> None:
            parent.ClearField(field.name)
            fill(parent, field)
            put(getattr(parent, field.name), key, value)

        return change

    for label, value, well in values(value_field, rules, in_map=True):
        yield f"value {label}", entry("k", value), None if well else f'{field.name}["k"]'
    value = accepted(value_field, rules)
    if _is_text(_key(field)):
        keys = [("empty", "", False), *((f"{bad!r}", bad, False) for bad in BAD_TEXT[rules.key_format])]
        if rules.key_max_length:
            keys.append(("as long as may be", "k" * rules.key_max_length, True))
            keys.append(("too long", "k" * (rules.key_max_length + 1), False))
        for label, key, well in keys:
            yield f"key {label}", entry(key, value), None if well else f"{field.name}["


def values(field: Any, rules: annotations.FieldRules, *, in_map: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(label, value, whether it is accepted)."""
    most_bytes = (rules.value_max_bytes if in_map else 0) or rules.max_bytes
    if field.message_type:
        yield from _message_values(field, rules)
    elif field.enum_type:
        numbers = [value.number for value in field.enum_type.values]
        yield "the last of the enum", max(numbers), True
        yield "none of the enum", max(numbers) + 1, False
        if rules.reject_unspecified and (field.is_repeated or in_map):
            yield "unspecified", 0, False
    elif _is_text(field):
        yield from _text_values(rules, most_bytes)
    elif field.type == field.TYPE_BYTES:
        most = min(bound for bound in (rules.max_length, most_bytes, 1 << 40) if bound)
        if most < 1 << 40:
            yield "as many bytes as may be", b"x" * most, True
            yield "a byte too many", b"x" * (most + 1), False
    elif field.type != field.TYPE_BOOL:
        yield from _numbers(field, rules)


def _text_values(rules: annotations.FieldRules, most_bytes: int) -> Iterator[tuple[str, str, bool]]:
    wanted = rules.format
    longest, least = rules.max_length, rules.min_length
    for bad in BAD_TEXT[wanted]:
        yield f"{bad[:20]!r}", bad, False
    for good in GOOD_TEXT[wanted]:
        if least <= len(good) and (not longest or len(good) <= longest):
            yield f"{good[:20]!r}", good, True
    if wanted in (annotations.FORMAT_SCOPE, annotations.FORMAT_IP, annotations.FORMAT_EMAIL):
        return
    if longest:
        yield "as long as may be", "a" * longest, True
        yield "too long", "a" * (longest + 1), False
    if least > 1:
        yield "as short as may be", "a" * least, True
        yield "too short", "a" * (least - 1), False
    if most_bytes and wanted == annotations.FORMAT_TEXT and (not longest or longest * 2 > most_bytes + 1):
        yield "as many bytes as may be", "é" * (most_bytes // 2), True
        yield "too many bytes", "é" * (most_bytes // 2 + 1), False


def _numbers(field: Any, rules: annotations.FieldRules) -> Iterator[tuple[str, Any, bool]]:
    kind = type(field.default_value)
    if rules.HasField("minimum"):
        yield "the least", kind(rules.minimum), True
        if not (kind is int and rules.minimum == 0 and field.type in (field.TYPE_UINT32, field.TYPE_UINT64)):
            yield "below the least", kind(rules.minimum - 1), False
    if rules.HasField("maximum"):
        yield "the greatest", kind(rules.maximum), True
        yield "above the greatest", kind(rules.maximum + 1), False
    if kind is float:
        yield "NaN", float("nan"), False
        yield "infinite", float("-inf"), False


def _message_values(field: Any, rules: annotations.FieldRules) -> Iterator[tuple[str, Any, bool]]:
    make = GetMessageClass(field.message_type)
    match field.message_type.full_name:
        case "google.protobuf.Timestamp":
            yield "the first", make(seconds=-62135596800), True
            yield "before the first", make(seconds=-62135596801), False
            yield "the last", make(seconds=253402300799, nanos=999999999), True
            yield "after the last", make(seconds=253402300800), False
            yield "with negative nanos", make(seconds=1, nanos=-1), False
            yield "with too many nanos", make(seconds=1, nanos=10**9), False
        case "google.protobuf.Duration":
            low = rules.min_seconds if rules.HasField("min_seconds") else -315576000000
            high = rules.max_seconds if rules.HasField("max_seconds") else 315576000000
            yield "the shortest", make(seconds=low), True
            yield "too short", make(seconds=low - 1), False
            yield "the longest", make(seconds=high), True
            yield "too long", make(seconds=high, nanos=1), False
            yield "of two signs", make(seconds=high, nanos=-1), False
            yield "with too many nanos", make(seconds=low, nanos=10**9), False
        case "google.protobuf.FieldMask":
            most = rules.max_items
            yield "as many paths as may be", make(paths=["a"] * most), True
            yield "a path too many", make(paths=["a"] * (most + 1)), bool(not most)
            yield "a path with NUL", make(paths=["a\x00"]), False


def _setter(field: Any, value: Any) -> Callable[[Any], None]:
    def change(parent: Any) -> None:
        if field.message_type:
            getattr(parent, field.name).CopyFrom(value)
            getattr(parent, field.name).SetInParent()
        else:
            setattr(parent, field.name, value)

    return change


def append(items: Any, value: Any) -> None:
    items.append(value)


def put(entries: Any, key: Any, value: Any) -> None:
    if isinstance(value, Message):
        entries[key].CopyFrom(value)
    else:
        entries[key] = value


def _rules(field: Any) -> annotations.FieldRules:
    rules: annotations.FieldRules = field.GetOptions().Extensions[annotations.rules]
    return rules


def _has(field: Any, wanted: int) -> bool:
    return wanted in field.GetOptions().Extensions[behavior.field_behavior]


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _is_text(field: Any) -> bool:
    return bool(field.type == field.TYPE_STRING)


def _key(field: Any) -> Any:
    return field.message_type.fields_by_name["key"]
