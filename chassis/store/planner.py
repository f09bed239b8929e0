"""From a query to runs of index entries, or the refusal of a query that was not declared.

Which queries are admitted depends on the declarations alone, never on the data, and is the same for every engine.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chassis.store.encoding import ABOVE_NULL, END, descending, encode, incomparable
from chassis.store.indexes import CompiledIndex, Indexes, ordered
from chassis.store.port import Filter, Index, Op, Order, Query, UndeclaredQuery, Value

MAX_IN: Final = 30
RANGES: Final = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})


@dataclass(frozen=True, slots=True)
class Run:
    """Entries with low ≤ prefix < high; `exact` says that there is one prefix, `low`: then suffixes come in order."""

    low: bytes
    high: bytes
    exact: bool


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The entries of `runs` with start ≤ suffix < stop, merged by suffix (`backwards`: from the last to the first), of
    which `residual` is still to be checked.

    No document is in two runs. No runs: no document can match.
    """

    index: int
    runs: tuple[Run, ...]
    start: bytes
    stop: bytes
    residual: tuple[Filter, ...]
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """All documents of the collection by id, behind `after`."""

    after: str


class Planner:
    """Plans queries over the declared indexes of one store."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes

    def page(self, query: Query) -> IndexPlan | ScanPlan:
        """Raises UndeclaredQuery, and ValueError for what is not a query at all."""
        check(query)
        ranged = tuple(item for item in query.filters if item.op in RANGES)
        if any(item.field != query.order[0].field if query.order else True for item in ranged):
            raise UndeclaredQuery("A range filter applies to the first ordered field: order by it first.")
        if not query.filters and not query.order:
            return ScanPlan(str(query.after[0]) if query.after else "")
        return _plan(query, ranged, self._usable(query, (query.order,)))

    def count(self, query: Query) -> IndexPlan | ScanPlan:
        """As `page`, for a query whose order is not looked at."""
        query = replace(query, order=(), after=None, limit=1)
        check(query)
        ranged = tuple(item for item in query.filters if item.op in RANGES)
        if not query.filters:
            return ScanPlan("")
        if len({item.field for item in ranged}) > 1:
            raise UndeclaredQuery("Range filters apply to one field.")
        orders: tuple[tuple[Order, ...], ...] = ((),)
        if ranged:
            orders = ((Order(ranged[0].field),), (Order(ranged[0].field, descending=True),))
        return _plan(query, ranged, self._usable(query, orders))

    def _usable(self, query: Query, orders: Sequence[tuple[Order, ...]]) -> CompiledIndex:
        """The index that answers most of the filters, when the indexes that fit cover them all between them."""
        searched = {item.field for item in query.filters if item.op is Op.CONTAINS}
        compared = {item.field for item in query.filters if item.op not in RANGES and item.op is not Op.CONTAINS}
        fitting = [
            index
            for index in self._indexes.declared.get(query.collection, ())
            if index.order in orders
            and index.declared.contains <= searched
            and set(index.columns) - index.declared.contains <= compared
        ]
        covered_search = {field for index in fitting for field in index.declared.contains}
        covered = {field for index in fitting for field in set(index.columns) - index.declared.contains}
        if not fitting or covered != compared or covered_search != searched:
            missing = Index(
                query.collection, tuple(sorted(compared | searched)), orders[0], contains=frozenset(searched)
            )
            raise UndeclaredQuery(f"No declared index answers the query: declare {missing}.")
        return max(fitting, key=lambda index: _worth(index, query))


def check(query: Query) -> None:
    """Raises ValueError for a query that is none."""
    if query.limit < 1:
        raise ValueError("a query's limit is at least 1")
    ordered_by = [by.field for by in query.order]
    if len(set(ordered_by)) != len(ordered_by):
        raise ValueError("a query orders by each field at most once")
    if query.after is not None and (len(query.after) != len(query.order) + 1 or not isinstance(query.after[-1], str)):
        raise ValueError("a cursor has one value for each order, and then the id")
    for item in query.filters:
        if item.op is Op.IN and len(choices(item)) > MAX_IN:
            raise ValueError(f"IN takes at most {MAX_IN} values")


def choices(item: Filter) -> Sequence[Value]:
    """The values of an IN filter."""
    if isinstance(item.value, Sequence) and not isinstance(item.value, str | bytes):
        return item.value
    raise ValueError("IN takes a sequence of values")


def _worth(index: CompiledIndex, query: Query) -> tuple[int, int]:
    exact = {item.field for item in query.filters if item.op in {Op.EQ, Op.CONTAINS}}
    return len(set(index.columns) & exact), len(index.columns)


def _plan(query: Query, ranged: Sequence[Filter], index: CompiledIndex) -> IndexPlan:
    runs, answered = _runs(query, index)
    start, stop = _bounds(ranged, index.kept)
    if query.after is not None:
        seen = ordered(index.kept, query.after[:-1], str(query.after[-1]))
        start, stop = (start, min(stop, seen)) if index.backwards else (max(start, seen + b"\x00"), stop)
    done = {id(item) for item in answered}  # by identity: Filter(f, EQ, 1) equals Filter(f, EQ, True)
    residual = tuple(item for item in query.filters if id(item) not in done and item.op not in RANGES)
    if any(incomparable(item.value) and item.op not in {Op.EQ, Op.NE} for item in query.filters):
        runs = ()
    return IndexPlan(index.number, runs, start, stop, residual, index.backwards)


def _runs(query: Query, index: CompiledIndex) -> tuple[tuple[Run, ...], list[Filter]]:
    """The runs of prefixes, and the filters that they answer wholly: columns from the left, until one is a range."""
    prefixes = [encode(query.tenant)]
    answered: list[Filter] = []
    for column in index.columns:
        item = _best(query, column, contains=column == index.contains)
        if item.op is Op.NE:
            return tuple(_around(prefix, item.value, run) for prefix in prefixes for run in (0, 1)), [*answered, item]
        values = _points(item)
        if len(prefixes) * len(values) > MAX_IN:
            whole = tuple(Run(prefix + ABOVE_NULL, prefix + END, exact=False) for prefix in prefixes)
            return whole, answered
        answered.append(item)
        prefixes = [prefix + value for prefix, value in itertools.product(prefixes, values)]
    return tuple(Run(prefix, prefix + END, exact=True) for prefix in prefixes), answered


def _best(query: Query, column: str, *, contains: bool) -> Filter:
    """The narrowest of the filters on a column."""
    found = [item for item in query.filters if item.field == column and item.op not in RANGES]
    found = [item for item in found if (item.op is Op.CONTAINS) == contains]
    return min(found, key=lambda item: (Op.EQ, Op.CONTAINS, Op.IN, Op.NE).index(item.op))


def _points(item: Filter) -> list[bytes]:
    if item.op is Op.IN:
        return list(dict.fromkeys(encode(value) for value in choices(item) if not incomparable(value)))
    return [encode(item.value)]


def _around(prefix: bytes, value: Value, side: int) -> Run:
    """NE as two ranges: what lies before the value (nulls left out), and what lies behind it."""
    point = prefix + encode(value)
    if side == 0:
        return Run(prefix + ABOVE_NULL, max(point, prefix + ABOVE_NULL), exact=False)
    return Run(max(point + END, prefix + ABOVE_NULL), prefix + END, exact=False)


def _bounds(ranged: Sequence[Filter], order: Sequence[Order]) -> tuple[bytes, bytes]:
    low, stop = b"", END
    for item in ranged:
        point = encode(item.value)
        first, behind = point[:1], bytes([point[0] + 1])
        if order[0].descending:
            point, first = descending(point), descending(first)
            behind = bytes([first[0] + 1])
        starts = item.op in {Op.GT, Op.GE} if not order[0].descending else item.op in {Op.LT, Op.LE}
        inclusive = item.op in {Op.GE, Op.LE}
        if starts:
            low, stop = max(low, point if inclusive else point + END), min(stop, behind)
        else:
            low, stop = max(low, first), min(stop, point + END if inclusive else point)
    return low, stop
