"""Filters of a structured query: which documents they match, and what they ask of the indexes.

A missing field matches nothing. Ranges are within the value's type, NaN the lowest number; a range from null or NaN is empty.
A null field matches only equality with null. NOT_EQUAL matches values of all other types. OR is not supported here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.firestore.stored import Stored
from tests.firestore.values import NAME, NAN, NULL, Path, SortKey, parse_path, sort_key
from tests.firestore.wire import CompositeFilter, FieldFilter, UnaryFilter, invalid, unsupported

MAX_DISJUNCTIONS = 30
MAX_NOT_IN = 10
MAX_RANGE_FIELDS = 10
_RANGES: dict[int, Callable[[SortKey, SortKey], bool]] = {
    FieldFilter.LESS_THAN: lambda field, value: field < value,
    FieldFilter.LESS_THAN_OR_EQUAL: lambda field, value: field <= value,
    FieldFilter.GREATER_THAN: lambda field, value: field > value,
    FieldFilter.GREATER_THAN_OR_EQUAL: lambda field, value: field >= value,
}


@dataclass(slots=True)
class Filters:
    """The conjunction: fields fixed to a value, `tests` on the sort keys of others, and the fields by the way they are compared."""

    fixed: dict[Path, SortKey] = field(default_factory=dict)
    tests: list[tuple[Path, Callable[[SortKey], bool]]] = field(default_factory=list)
    within: set[Path] = field(default_factory=set)
    contains: set[Path] = field(default_factory=set)
    unequal: set[Path] = field(default_factory=set)
    disjunctions: int = 1
    arrays: int = 0
    negations: int = 0
    not_in: bool = False

    def fix(self, path: Path, value: SortKey) -> None:
        """Equality. A name is looked for among the documents: it needs no index."""
        if path == NAME or self.fixed.setdefault(path, value) != value:
            self.tests.append((path, lambda key: key == value))

    def match(self, document: Stored) -> bool:
        for path, test in self.tests:
            key = document.key(path)
            if key is None or not test(key):
                return False
        return True


def read(where: Any) -> Filters:
    """The filters of `StructuredQuery.where` (empty: none); INVALID_ARGUMENT for what production refuses."""
    filters = Filters()
    for each in _flat(where):
        if each.WhichOneof("filter_type") == "unary_filter":
            _unary(filters, each.unary_filter)
        else:
            _field(filters, each.field_filter)
    if filters.arrays > 1:
        raise invalid("A maximum of 1 'ARRAY_CONTAINS' filter is allowed per disjunction.")
    if filters.disjunctions > MAX_DISJUNCTIONS:
        raise invalid(f"Query supports up to {MAX_DISJUNCTIONS} disjunctions: {filters.disjunctions} were found.")
    if filters.negations > 1:
        raise invalid("Only a single 'NOT_EQUAL', 'NOT_IN', 'IS_NOT_NAN', or 'IS_NOT_NULL' filter allowed per query.")
    if filters.not_in and (filters.within or filters.negations > 1):
        raise invalid("'NOT_IN' cannot be combined with 'IN', 'NOT_EQUAL' or another 'NOT_IN'.")
    if len(filters.unequal) > MAX_RANGE_FIELDS:
        raise invalid(f"A query has range and inequality filters on at most {MAX_RANGE_FIELDS} fields.")
    return filters


def _flat(where: Any) -> Iterator[Any]:
    match where.WhichOneof("filter_type"):
        case None:
            return
        case "composite_filter":
            if where.composite_filter.op != CompositeFilter.AND:
                raise unsupported("A composite filter other than AND")
            if not where.composite_filter.filters:
                raise invalid("A composite filter has no filters.")
            for each in where.composite_filter.filters:
                yield from _flat(each)
        case _:
            yield where


def _unary(filters: Filters, unary: Any) -> None:
    path = parse_path(unary.field.field_path)
    match unary.op:
        case UnaryFilter.IS_NULL:
            filters.fix(path, NULL)
        case UnaryFilter.IS_NAN:
            filters.fix(path, NAN)
        case UnaryFilter.IS_NOT_NULL:
            _negate(filters, path)
            filters.tests.append((path, lambda key: key != NULL))
        case UnaryFilter.IS_NOT_NAN:
            _negate(filters, path)
            filters.tests.append((path, lambda key: key not in {NULL, NAN}))
        case op:
            raise invalid(f"Unknown unary operator {op}.")


def _negate(filters: Filters, path: Path) -> None:
    filters.unequal.add(path)
    filters.negations += 1


def _field(filters: Filters, each: Any) -> None:
    path, op = parse_path(each.field.field_path), each.op
    if path == NAME:
        _check_reference(each)
    if op in {FieldFilter.IN, FieldFilter.NOT_IN, FieldFilter.ARRAY_CONTAINS_ANY}:
        _list(filters, path, each)
        return
    value = sort_key(each.value)
    if op in _RANGES:
        compare = _RANGES[op]
        filters.unequal.add(path)
        # A range beginning or ending at null or NaN is empty. NaN as a field's value is the least of the numbers: the
        # lower bound that the Firebase SDKs give a range of numbers is NaN (`valuesGetLowerBound`).
        void = value in {NULL, NAN}
        filters.tests.append((path, lambda key: not void and key[0] == value[0] and compare(key, value)))
    elif op == FieldFilter.EQUAL:
        filters.fix(path, value)
    elif op == FieldFilter.NOT_EQUAL:
        _negate(filters, path)
        filters.tests.append((path, lambda key: key not in {NULL, value}))
    elif op == FieldFilter.ARRAY_CONTAINS:
        filters.contains.add(path)
        filters.arrays += 1
        filters.tests.append((path, lambda key: key[0] == 8 and value in key[1]))
    else:
        raise invalid(f"Unknown field operator {op}.")


def _list(filters: Filters, path: Path, each: Any) -> None:
    name = FieldFilter.Operator.Name(each.op)
    if each.op == FieldFilter.ARRAY_CONTAINS_ANY:
        raise unsupported("ARRAY_CONTAINS_ANY")
    values = each.value.array_value.values
    if each.value.WhichOneof("value_type") != "array_value" or not values:
        raise invalid(f"'{name}' requires an non-empty ArrayValue.")
    most = MAX_NOT_IN if each.op == FieldFilter.NOT_IN else MAX_DISJUNCTIONS
    if len(values) > most:
        raise invalid(f"'{name}' supports up to {most} comparison values.")
    keys = {sort_key(value) for value in values}
    if each.op == FieldFilter.NOT_IN:
        _negate(filters, path)
        filters.not_in = True
        filters.tests.append((path, lambda key: NULL not in keys and key != NULL and key not in keys))
        return
    filters.within.add(path)
    filters.disjunctions *= len(values)
    # As in an equality by `IN`, null and NaN equal nothing.
    keys -= {NULL, NAN}
    filters.tests.append((path, lambda key: key in keys))


def _check_reference(each: Any) -> None:
    values = each.value.array_value.values if each.value.WhichOneof("value_type") == "array_value" else [each.value]
    if any(value.WhichOneof("value_type") != "reference_value" for value in values):
        raise invalid("__key__ filter value must be a Key")
