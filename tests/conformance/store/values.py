"""Values: what goes in comes out, and how values of all types are ordered."""

import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest

from chassis.store.port import Create, DocumentStore, Filter, Op, Order, Put, Value
from tests.conformance.store.backend import MOMENT, Conformance, eq, fill, ids, key, things

MAX, MIN = 2**63 - 1, -(2**63)
NAN = float("nan")

ASCENDING: Sequence[Value] = (
    None,
    False,
    True,
    NAN,
    -math.inf,
    -1.7e308,
    MIN,
    MIN + 1,
    -1.5,
    -1,
    -5e-324,
    0,
    5e-324,
    0.5,
    1,
    1.5,
    2**53,
    2**53 + 1,
    2.0**53 + 2,
    MAX - 1,
    MAX,
    2.0**63,
    math.inf,
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    MOMENT,
    MOMENT + timedelta(microseconds=1),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "",
    "\x00",
    "\x00a",
    "\x01",
    "a",
    "a\x00",
    "a\x01",
    "ab",
    "b",
    "é",
    "\uffff",
    "😀",
    b"",
    b"\x00",
    b"\x00\xff",
    b"\x01",
    b"\xff",
    [],
    [None],
    [1],
    [1, 2],
    [1.5],
    ["a"],
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"a": 2},
    {"b": 0},
)
"""Every type, by Firestore's order of values."""


class Values(Conformance):
    async def test_every_value_comes_back(self, store: DocumentStore) -> None:
        fields = {f"f{n}": value for n, value in enumerate(ASCENDING)}
        await store.commit([Create(key("a"), fields)])
        found = await store.get(key("a"))
        assert found is not None
        for name, value in fields.items():
            assert repr(found.fields[name]) == repr(value)

    async def test_negative_zero_is_kept_and_equals_zero(self, store: DocumentStore) -> None:
        await fill(store, {"a": {"kind": -0.0}, "b": {"kind": 0}, "c": {"kind": 0.0}})
        found = await store.get(key("a"))
        assert found is not None
        assert math.copysign(1, found.fields["kind"]) == -1  # type: ignore[arg-type]  # it is the float above
        for zero in (0, 0.0, -0.0):
            assert await ids(store, things(eq("kind", zero))) == ["a", "b", "c"]

    async def test_maps_that_look_like_an_encoding_come_back(self, store: DocumentStore) -> None:
        maps: list[dict[str, Value]] = [{"$time": 5}, {"$bytes": "x"}, {"$map": {"$time": 1}}, {"": 0}, {"$map": []}]
        for each in maps:
            await store.commit([Put(key("a"), {"m": each, "l": [each]})])
            found = await store.get(key("a"))
            assert found is not None
            assert found.fields == {"m": each, "l": [each]}

    async def test_a_field_may_have_any_name(self, store: DocumentStore) -> None:
        for fields in ({"$time": 5}, {"$map": {"a": 1}}, {"é\x00": 1, "a.b": 2, "`": 3}):
            await store.commit([Put(key("a"), fields)])
            found = await store.get(key("a"))
            assert found is not None
            assert found.fields == fields

    async def test_a_timestamp_comes_back_in_utc(self, store: DocumentStore) -> None:
        local = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
        await store.commit([Create(key("a"), {"t": local})])
        found = await store.get(key("a"))
        assert found is not None
        moment = found.fields["t"]
        assert isinstance(moment, datetime)
        assert (moment, moment.utcoffset()) == (MOMENT, timedelta(0))

    @pytest.mark.parametrize(
        "value",
        [MAX + 1, MIN - 1, MOMENT.replace(tzinfo=None), "\ud800", [[1]], {"a": [[1]]}, object(), {"a": "\udfff"}],
        # By number: an object's own text has its address, which differs from process to process.
        ids=[f"case{number}" for number in range(8)],
    )
    async def test_what_no_engine_can_hold_is_refused(self, store: DocumentStore, value: Value) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are each engine's own
            await store.commit([Create(key("a"), {"f": value})])
        assert await store.get(key("a")) is None

    async def test_nesting_ends_at_20_levels(self, store: DocumentStore) -> None:
        deep: Value = "x"
        for _ in range(20):
            deep = {"m": deep}
        await store.commit([Create(key("a"), {"f": deep})])
        with pytest.raises(ValueError, match="deeper"):
            await store.commit([Create(key("b"), {"f": {"m": deep}})])

    @pytest.mark.parametrize("name", ["a", "ä/😀 \x00\n", "__x__", "..", "x" * 1500, "%2F", "'; --"])
    async def test_ids_are_any_text(self, store: DocumentStore, name: str) -> None:
        await fill(store, {name: {"kind": name}, "other": {}})
        found = await store.get(key(name))
        assert found is not None
        assert found.key == key(name)
        assert await ids(store, things(eq("kind", name))) == [name]
        assert await ids(store, things(limit=1, after=(min(name, "other"),))) == [max(name, "other")]

    @pytest.mark.parametrize("bad", [key(""), key("x" * 1501), key("a", tenant=""), key("a", collection="")])
    async def test_a_key_has_three_parts_of_1_to_1500_bytes(self, store: DocumentStore, bad: object) -> None:
        with pytest.raises(ValueError, match="1500"):
            await store.commit([Create(bad, {})])  # type: ignore[arg-type]  # it is a Key

    @pytest.mark.parametrize("descending", [False, True])
    async def test_all_types_are_ordered_as_firestore_orders_them(
        self, store: DocumentStore, *, descending: bool
    ) -> None:
        await fill(store, {f"{n:03}": {"rank": value} for n, value in enumerate(ASCENDING)})
        await fill(store, {"lacking": {"kind": "no rank"}})
        names = [f"{n:03}" for n in range(len(ASCENDING))]
        expected = names[::-1] if descending else names
        order = (Order("rank", descending),)
        assert await ids(store, things(order=order, limit=100)) == expected
        for name, value in zip(names, ASCENDING, strict=True):
            after = expected[expected.index(name) + 1 :]
            assert await ids(store, things(order=order, after=(value, name), limit=100)) == after

    async def test_comparisons_match_within_one_type(self, store: DocumentStore) -> None:
        await fill(store, {f"{n:03}": {"rank": value} for n, value in enumerate(ASCENDING)})
        kinds = [_kind(value) for value in ASCENDING]
        for position, op in itertools.product(range(len(ASCENDING)), (Op.LT, Op.LE, Op.GT, Op.GE)):
            value = ASCENDING[position]
            expected = [
                f"{n:03}"
                for n in range(len(ASCENDING))
                if kinds[n] == kinds[position] and _holds(op, n, position) and not (value is None or value is NAN)
            ]
            query = things(Filter("rank", op, value), order=(Order("rank"),), limit=100)
            assert await ids(store, query) == expected, (op, value)
            assert await store.count(query) == len(expected)
            down = things(Filter("rank", op, value), order=(Order("rank", descending=True),), limit=100)
            assert await ids(store, down) == expected[::-1], (op, value)


def _kind(value: Value) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__
    return "number"


def _holds(op: Op, left: int, right: int) -> bool:
    return {Op.LT: left < right, Op.LE: left <= right, Op.GT: left > right, Op.GE: left >= right}[op]
