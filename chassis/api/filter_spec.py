"""What may be asked of each field in a filter, and how it is asked of the store.

A service declares its fields once; `FilterSpec.compile` turns the text of a request into store filters: repeated
conditions are merged, and conditions that cannot hold together give an empty list without asking the store.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor

from chassis.api.filtering import Condition, parse, refused, text_of
from chassis.store.port import Filter, Op, Value

EQUALITY: Final = frozenset({"=", "!="})
COMPARISON: Final = frozenset({"=", "!=", "<", "<=", ">", ">="})
RANGE: Final = frozenset({"=", "<", "<=", ">", ">="})

_OPS: Final[Mapping[str, Op]] = {"=": Op.EQ, "!=": Op.NE, "<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE}
_TIMESTAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """One field that can be filtered by. `stored` is the store's field name, `read` turns the written value into the
    stored one (ValueError when it is none), `values` lists all there are where they are few (enums, booleans)."""

    stored: str
    operators: frozenset[str]
    accepts: str
    read: Callable[[str], Value]
    values: tuple[Value, ...] = ()
    names: tuple[str, ...] = ()
    is_map: bool = False


def text(stored: str, operators: frozenset[str] = EQUALITY) -> Field:
    return Field(stored, operators, "text", str)


def integer(stored: str, operators: frozenset[str] = COMPARISON) -> Field:
    return Field(stored, operators, "a whole number", lambda written: int(_matching(_INTEGER, written)))


def number(stored: str, operators: frozenset[str] = COMPARISON) -> Field:
    return Field(stored, operators, "a number", lambda written: float(_matching(_NUMBER, written)))


def boolean(stored: str) -> Field:
    known: dict[str, Value] = {"true": True, "false": False}
    return _choice(stored, "true or false", known, tuple(known))


def timestamp(stored: str, operators: frozenset[str] = RANGE) -> Field:
    """RFC 3339 with an offset, at most microseconds."""
    return Field(stored, operators, "a time such as 2026-01-31T12:00:00Z", _timestamp)


def enum(stored: str, descriptor: EnumDescriptor, *, by_name: bool = False) -> Field:
    """Values by full name (`DEVICE_STATUS_ONLINE`) or without the enum's prefix (`ONLINE`); stored as number, or
    `by_name` as full name. The zero value is not accepted: nothing has it."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", descriptor.name).upper() + "_"
    known: dict[str, Value] = {}
    for value in descriptor.values:
        if value.number != 0:
            known[value.name] = known[value.name.removeprefix(prefix)] = value.name if by_name else value.number
    return _choice(
        stored, "one of " + ", ".join(v.name for v in descriptor.values if v.number != 0), known, tuple(known)
    )


def labels(stored: str) -> Field:
    """A map of strings, searched through the array field `stored`, which holds `label_terms` of the map."""
    return Field(stored, frozenset({"=", ":"}), "text", str, is_map=True)


def label_terms(entries: Mapping[str, str]) -> list[str]:
    """What the array field behind `labels` holds: the key and `key=value` of each entry, sorted."""
    return sorted({term for key, value in entries.items() for term in (_escaped(key), f"{_escaped(key)}={value}")})


@dataclass(frozen=True, slots=True)
class Compiled:
    """A filter, ready for the store. `nothing`: no item can match, so the store need not be asked. `ranged` is the
    stored field that must come first in the order, "" for none. `canonical` is one text for all spellings of it."""

    filters: tuple[Filter, ...] = ()
    nothing: bool = False
    ranged: str = ""
    canonical: str = ""


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """The fields that a list can be filtered by, under their API names."""

    fields: Mapping[str, Field]

    def compile(self, written: str) -> Compiled:
        """Raises INVALID_ARGUMENT on `filter` naming the position, what was found and what is accepted."""
        conditions = parse(written)
        if not conditions:
            return Compiled()
        by_field: dict[str, list[tuple[Condition, Value]]] = {}
        for condition in conditions:
            by_field.setdefault(condition.field, []).append((condition, self._read(condition)))
        found: list[Filter] = []
        ranged = ""
        for name, asked in by_field.items():
            field = self.fields[name]
            merged = _merge(field, [(condition.key, condition.op, value) for condition, value in asked])
            if merged is None:
                return Compiled(nothing=True, canonical=text_of(conditions))
            if any(each.op in _RANGES for each in merged):
                if ranged:
                    raise refused(asked[0][0].position, "only one field of a filter can be compared with < <= > >=")
                ranged = field.stored
            found += merged
        found.sort(key=lambda each: (each.field, each.op.value, repr(each.value)))
        return Compiled(tuple(found), ranged=ranged, canonical=" AND ".join(map(_shown, found)))

    def _read(self, condition: Condition) -> Value:
        """The stored form of the condition's value; refuses what the field does not know."""
        at, name = condition.position, condition.field
        field = self.fields.get(name)
        if field is None:
            near = _nearest(name, self.fields)
            raise refused(at, f"there is no field {name[:64]!r} to filter by{near}; there are {', '.join(self.fields)}")
        if condition.key is not None and not field.is_map:
            raise refused(at, f"{name!r} is not a map, so {name}.{condition.key[:64]} is not in it")
        if field.is_map and (condition.key is None) != (condition.op == ":"):
            raise refused(at, f'write {name}:key for "has the key", or {name}.key = "value"')
        if condition.op not in field.operators:
            accepted = " ".join(op for op in ("=", "!=", "<", "<=", ">", ">=", ":") if op in field.operators)
            raise refused(at, f"{name!r} cannot be asked with {condition.op}; accepted: {accepted}")
        try:
            return field.read(condition.value)
        except (ValueError, KeyError, OverflowError):
            near = _nearest(condition.value, field.names)
            raise refused(at, f"{condition.value[:64]!r} is not accepted for {name!r}{near}: {field.accepts}") from None


_RANGES: Final = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})
_Asked = list[tuple[str | None, str, Value]]


def _merge(field: Field, asked: _Asked) -> list[Filter] | None:
    """All that is asked of one field, without repetition; None when it cannot hold together."""
    if field.is_map:
        return _merge_labels(field, asked)
    if field.values:
        return _merge_choices(field, asked)
    return _merge_scalars(field, asked)


def _merge_labels(field: Field, asked: _Asked) -> list[Filter] | None:
    wanted: dict[str, str] = {}
    present: set[str] = set()
    for key, _, value in asked:
        if key is None:
            present.add(str(value))
        elif wanted.setdefault(key, str(value)) != value:
            return None
    terms = [f"{_escaped(key)}={value}" for key, value in wanted.items()]
    terms += [_escaped(key) for key in present - wanted.keys()]
    return [Filter(field.stored, Op.CONTAINS, term) for term in sorted(terms)]


def _merge_choices(field: Field, asked: _Asked) -> list[Filter] | None:
    left = list(field.values)
    for _, op, value in asked:
        left = [each for each in left if (each == value) == (op == "=")]
    if not left:
        return None
    if len(left) == 1:
        return [Filter(field.stored, Op.EQ, left[0])]
    return [Filter(field.stored, Op.IN, tuple(left))]


def _merge_scalars(field: Field, asked: _Asked) -> list[Filter] | None:
    # Values of one field are of one type, which orders; `Any` because the union of all types does not.
    equal: list[Any] = _distinct(value for _, op, value in asked if op == "=")
    unequal: list[Any] = _distinct(value for _, op, value in asked if op == "!=")
    # The greatest lower bound; of two equal ones, the strict.
    lows: list[Any] = sorted((value, op == ">") for _, op, value in asked if op in (">", ">="))
    highs: list[Any] = sorted((value, op == "<=") for _, op, value in asked if op in ("<", "<="))
    low, high = lows[-1:], highs[:1]
    if low and high and low[0][0] == high[0][0] and not low[0][1] and high[0][1]:
        equal, low, high = _distinct([*equal, low[0][0]]), [], []

    def within(value: Any) -> bool:
        above = not low or value > low[0][0] or (value == low[0][0] and not low[0][1])
        return above and (not high or value < high[0][0] or (value == high[0][0] and high[0][1]))

    if equal:
        (value,) = equal[:1]
        if len(equal) > 1 or value in unequal or not within(value):
            return None
        return [Filter(field.stored, Op.EQ, value)]
    if low and high and low[0][0] >= high[0][0]:
        return None
    out = [Filter(field.stored, Op.NE, value) for value in unequal if within(value)]
    out += [Filter(field.stored, Op.GT if strict else Op.GE, value) for value, strict in low]
    return out + [Filter(field.stored, Op.LE if included else Op.LT, value) for value, included in high]


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _choice(stored: str, accepts: str, known: Mapping[str, Value], names: tuple[str, ...]) -> Field:
    return Field(stored, EQUALITY, accepts, known.__getitem__, tuple(dict.fromkeys(known.values())), names)


def _matching(pattern: "re.Pattern[str]", written: str) -> str:
    if not pattern.fullmatch(written):
        raise ValueError(written)
    return written


def _timestamp(written: str) -> datetime:
    return datetime.fromisoformat(_matching(_TIMESTAMP, written).upper()).astimezone(UTC)


def _escaped(key: str) -> str:
    """A key that cannot be taken for `key=value`: its own `=` are marked."""
    return key.replace("\\", "\\\\").replace("=", "\\=")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:64], list(known), n=1) or get_close_matches(name[:64].upper(), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(each: Filter) -> str:
    return f"{each.field} {each.op.value} {each.value!r}"
