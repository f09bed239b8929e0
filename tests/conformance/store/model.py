"""The store against a naive model: a dictionary, filtered and sorted by Firestore's rules written out anew."""

import asyncio
import functools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.store.port import DocumentStore, Fields, Filter, Op, Order, Put, Query, Value
from tests.conformance.store.backend import MOMENT, SCHEMA, Backend, Conformance, key

SCALARS: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
    st.sampled_from([0.5, -0.0, math.nan, math.inf, 2.0**53, 2.0**63, 1.0]),
    st.sampled_from(["", "a", "a\x00", "b", "é"]),
    st.sampled_from([b"", b"\x00", b"a"]),
    st.just(MOMENT),
)
VALUES: st.SearchStrategy[Value] = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2)
)
DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "kind": VALUES,
            "state": st.sampled_from(["on", "off"]),
            "rank": VALUES,
            "born": SCALARS,
            "tags": st.lists(SCALARS, max_size=3),
        },
    ),
    max_size=12,
)
ORDERS = tuple({index.order for index in SCHEMA.indexes})


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Queries that the suite's schema admits."""
    order = draw(st.sampled_from(ORDERS))
    admitted = {
        name for index in SCHEMA.indexes if index.order == order and len(index.fields) == 1 for name in index.fields
    }
    both = any(set(index.fields) == {"state", "kind"} and index.order == order for index in SCHEMA.indexes)
    filters = [draw(_filter(name)) for name in sorted(admitted) if draw(st.booleans())]
    if both:
        filters += [draw(_filter("state")), draw(_filter("kind"))]
    ranged = not order or draw(st.booleans())
    if not ranged:
        op = draw(st.sampled_from([Op.LT, Op.LE, Op.GT, Op.GE]))
        filters.append(Filter(order[0].field, op, draw(VALUES)))
    after: tuple[Value, ...] | None = None
    if draw(st.booleans()):
        after = (*(draw(VALUES) for _ in order), draw(st.sampled_from(["d00", "d05", "d055", "e"])))
    has_index = bool(order or filters)
    return Query("acme", "things", tuple(filters), order if has_index else (), after, draw(st.integers(1, 12)))


@st.composite
def _filter(draw: st.DrawFn, name: str) -> Filter:
    if name == "tags":
        return Filter(name, Op.CONTAINS, draw(SCALARS))
    op = draw(st.sampled_from([Op.EQ, Op.NE, Op.IN]))
    value = st.sampled_from(["on", "off", None]) if name == "state" else VALUES
    return Filter(name, op, draw(st.lists(value, max_size=3) if op is Op.IN else value))


class AgainstModel(Conformance):
    def test_queries_and_counts_equal_the_model(self, backend: Backend) -> None:
        with asyncio.Runner() as runner:
            store = runner.run(backend.opening(SCHEMA))
            present: dict[str, Fields] = {}

            @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
            @given(DOCUMENTS, st.lists(queries(), min_size=1, max_size=6))
            def holds(documents: list[Fields], asked: list[Query]) -> None:
                runner.run(_compare(store, present, documents, asked))

            try:
                holds()
            finally:
                runner.run(store.close())


async def _compare(
    store: DocumentStore, present: dict[str, Fields], documents: Sequence[Fields], asked: Sequence[Query]
) -> None:
    """Documents of earlier examples are overwritten, never removed: updates of indexes are tried as well."""
    writes = {f"d{n:02}": fields for n, fields in enumerate(documents)}
    if writes:
        await store.commit([Put(key(name), fields) for name, fields in writes.items()])
    present.update(writes)
    for query in asked:
        found = [document.key.id for document in await store.query(query)]
        assert found == model_page(present, query), query
        counted = tuple(item for item in query.filters)
        if countable(query):
            assert await store.count(query) == sum(_matches(fields, counted) for fields in present.values()), query


def countable(query: Query) -> bool:
    """Whether the suite's schema declares the count, whose order is not looked at."""
    fields = {item.field for item in query.filters if item.op not in _RANGES}
    ranged = {item.field for item in query.filters if item.op in _RANGES}
    return fields <= {"kind", "state", "tags"} if not ranged else not fields


_RANGES = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})
_RANK: Mapping[type, int] = {
    type(None): 0, bool: 1, int: 2, float: 2, datetime: 3, str: 4, bytes: 5, list: 6, tuple: 6, dict: 7,
}  # fmt: skip


def compare(left: Value, right: Value) -> int:  # noqa: C901, PLR0911 - one return a rule
    """Firestore's order of values: negative, zero or positive."""
    kind = _RANK[type(left)]
    if kind != _RANK[type(right)]:
        return kind - _RANK[type(right)]
    if isinstance(left, str) and isinstance(right, str):
        return _sign(left.encode(), right.encode())
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for one, other in zip(sorted(left.items(), key=_name), sorted(right.items(), key=_name), strict=False):
            if unequal := compare(one[0], other[0]) or compare(one[1], other[1]):
                return unequal
        return len(left) - len(right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        for first, second in zip(left, right, strict=False):
            if unequal := compare(first, second):
                return unequal
        return len(left) - len(right)
    if left is None:
        return 0
    if isinstance(left, float) and math.isnan(left):
        return 0 if isinstance(right, float) and math.isnan(right) else -1
    if isinstance(right, float) and math.isnan(right):
        return 1
    return _sign(left, right)


def _name(item: tuple[str, Value]) -> bytes:
    return item[0].encode()


def _sign(left: object, right: object) -> int:
    return int(left > right) - int(left < right)  # type: ignore[operator]  # two of one ordered type


def model_page(present: Mapping[str, Fields], query: Query) -> list[str]:
    rows = [
        (*(fields[by.field] for by in query.order), name)
        for name, fields in present.items()
        if all(by.field in fields for by in query.order) and _matches(fields, query.filters)
    ]
    last = bool(query.order) and query.order[-1].descending
    directions = (*query.order, Order("id", last))

    def row_order(left: Sequence[Value], right: Sequence[Value]) -> int:
        for by, one, other in zip(directions, left, right, strict=True):
            if unequal := compare(one, other):
                return -unequal if by.descending else unequal
        return 0

    rows.sort(key=functools.cmp_to_key(row_order))
    after = query.after
    behind = rows if after is None else [row for row in rows if row_order(row, after) > 0]
    return [str(row[-1]) for row in behind[: query.limit]]


def _matches(fields: Fields, filters: Sequence[Filter]) -> bool:
    return all(item.field in fields and _match(item, fields[item.field]) for item in filters)


def _match(item: Filter, value: Value) -> bool:
    wanted = item.value
    if item.op is Op.EQ:
        return compare(value, wanted) == 0
    if item.op is Op.NE:
        return value is not None and compare(value, wanted) != 0
    if item.op is Op.IN:
        assert isinstance(wanted, list)
        return any(not _blank(choice) and compare(value, choice) == 0 for choice in wanted)
    if item.op is Op.CONTAINS:
        return isinstance(value, list) and not _blank(wanted) and any(compare(each, wanted) == 0 for each in value)
    if _blank(wanted) or _RANK[type(value)] != _RANK[type(wanted)]:
        return False
    order = compare(value, wanted)
    return {Op.LT: order < 0, Op.LE: order <= 0, Op.GT: order > 0, Op.GE: order >= 0}[item.op]


def _blank(value: Value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
