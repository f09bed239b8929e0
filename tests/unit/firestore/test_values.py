"""The order of values: across types, within each, and as the client library compares them."""

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud.firestore import AsyncClient, GeoPoint
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.order import Order
from hypothesis import given
from hypothesis import strategies as st

from tests.firestore.limits import name_size
from tests.firestore.values import lookup, parse_path, sort_key
from tests.firestore.wire import Document, Refused
from tests.unit.firestore.calls import DEVICES, ids, put, value

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ASCENDING: list[Any] = [
    None,
    False,
    True,
    math.nan,
    -math.inf,
    -(2**63),
    -1.5,
    -1,
    0,
    0.5,
    1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    float(2**63),
    math.inf,
    _MOMENT - timedelta(days=700_000),
    _MOMENT,
    _MOMENT + timedelta(microseconds=1),
    "",
    "A",
    "a",
    "aa",
    "b",
    "é",
    "\uffff",
    "\U0001f600",  # after U+FFFF in UTF-8, before it in UTF-16
    b"",
    b"\x00",
    b"\x00\x00",
    b"\xff",
    GeoPoint(-90, 0),
    GeoPoint(0, -1),
    GeoPoint(0, 1),
    [],
    [None],
    [1],
    [1, 1],
    [2],
    ["a"],
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"a": 2},
    {"b": 0},
]


def _pb(of: Any) -> Any:
    return types.Value.pb(value(of))


async def test_a_query_orders_all_types(firestore_client: AsyncClient) -> None:
    # Names run against the order, so that the tie-break by name cannot pass for it.
    documents = {f"d{999 - number}": {"v": each} for number, each in enumerate(ASCENDING)}
    reference = firestore_client.document("tenants/t/devices/other")
    at = ASCENDING.index(GeoPoint(-90, 0)) - 0.5
    await put(firestore_client, {**documents, f"d{999 - at}": {"v": reference}, "without": {"w": 1}})
    expected = sorted([f"d{999 - number}" for number in range(len(ASCENDING))] + [f"d{999 - at}"], reverse=True)
    expected.sort(key=lambda each: -float(each[1:]))
    query = firestore_client.collection(DEVICES)
    assert await ids(query.order_by("v")) == expected
    assert await ids(query.order_by("v", direction="DESCENDING")) == expected[::-1]


def test_the_order_is_strict() -> None:
    for lesser, greater in itertools.combinations(ASCENDING, 2):
        assert sort_key(_pb(lesser)) < sort_key(_pb(greater)), (lesser, greater)


@pytest.mark.parametrize(("one", "other"), [(0, -0.0), (1, 1.0), (2**53, float(2**53)), (math.nan, -math.nan)])
def test_equal_numbers(one: float, other: float) -> None:
    assert sort_key(_pb(one)) == sort_key(_pb(other))


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC))
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(_SCALARS) | st.dictionaries(st.text("ab", min_size=1), inner))


@given(_VALUES, _VALUES)
def test_the_order_is_the_client_librarys(one: Any, other: Any) -> None:
    """The client sorts what it listens to by the same published order: an oracle that we did not write."""
    left, right = sort_key(_pb(one)), sort_key(_pb(other))
    assert (left > right) - (left < right) == Order.compare(value(one), value(other))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b_1", ("a", "b_1")),
        ("`a.b`", ("a.b",)),
        ("`a/b`.c", ("a/b", "c")),
        (r"`a\`b\\c`", ("a`b\\c",)),
    ],
)
def test_field_paths(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", "a.", ".a", "1a", "a b", "a/b", "`a", "`a`b", "a-b"])
def test_malformed_field_paths(text: str) -> None:
    with pytest.raises(Refused):
        parse_path(text)


def test_a_path_that_leads_nowhere() -> None:
    document = Document()
    document.fields["a"].integer_value = 1
    assert lookup(document.fields, ("a", "b")) is None
    assert lookup(document.fields, ("b",)) is None


def test_the_documentations_example_of_a_name() -> None:
    assert name_size("users/jeff/tasks/my_task_id") == 44
