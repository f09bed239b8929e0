"""Filters, cursors, limits, projections and counts. Indexes are the next file's: here every query is served."""

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1.base_query import FieldFilter, Or
from google.cloud.firestore_v1.types import Cursor, StructuredQuery

from tests.firestore_server import FirestoreServer
from tests.support.firestore import client_of, serving
from tests.unit.firestore.calls import DEVICES, commit, delete, ids, name, put, run, update, value

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_DOCUMENTS: dict[str, dict[str, Any]] = {
    "a": {"n": 1, "s": "x", "tags": ["red", "blue"], "m": {"k": 1}},
    "b": {"n": 2, "s": "x", "tags": ["red"], "odd.name": 1},
    "c": {"n": 2.5, "s": "y", "tags": [], "sl/ash": 1},
    "d": {"n": math.nan, "s": "y", "tags": "red", "`tick`": 1},
    "e": {"n": None, "s": "x"},
    "f": {"n": "2", "s": "z"},
    "g": {"s": "x", "at": _NOW},
}


@pytest.fixture
async def server() -> AsyncIterator[FirestoreServer]:
    async with serving(any_query=True) as server:
        yield server


@pytest.fixture
async def client(server: FirestoreServer) -> AsyncIterator[AsyncClient]:
    async with client_of(server.address) as client:
        await put(client, _DOCUMENTS)
        server.counts.clear()
        yield client


@pytest.mark.parametrize(
    ("field", "op", "operand", "expected"),
    [
        ("n", "==", 2, "b"),
        ("n", "==", 2.5, "c"),
        ("n", "==", "2", "f"),
        ("n", "==", None, "e"),
        ("n", "==", math.nan, "d"),
        ("n", "<", 2.5, "dab"),  # NaN is the lowest number
        ("n", "<=", 2.5, "dabc"),
        ("n", ">", 1, "bc"),
        ("n", ">=", "", "f"),
        ("n", "<", True, ""),
        ("n", "!=", 2, "dacf"),
        ("n", "!=", None, "dabcf"),
        ("n", "!=", math.nan, "abcf"),
        ("n", "in", [2, "2", None], "bf"),
        ("n", "not-in", [2, "2"], "dac"),
        ("n", "not-in", [2, None], ""),
        ("tags", "array_contains", "red", "ab"),
        ("m.k", "==", 1, "a"),
        ("m", "==", {"k": 1}, "a"),
        ("`odd.name`", "==", 1, "b"),
        ("`sl/ash`", "==", 1, "c"),
        (r"`\`tick\``", "==", 1, "d"),
        ("at", ">=", _NOW, "g"),
        ("missing", "==", None, ""),
    ],
)
async def test_filters(client: AsyncClient, field: str, op: str, operand: Any, expected: str) -> None:
    query = client.collection(DEVICES).where(filter=FieldFilter(field, op, operand))
    found = await ids(query)
    assert "".join(found) == expected


async def test_filters_are_all_to_hold(client: AsyncClient) -> None:
    query = client.collection(DEVICES).where(filter=FieldFilter("s", "==", "x")).where(filter=FieldFilter("n", ">", 1))
    assert await ids(query) == ["b"]
    assert await ids(query.where(filter=FieldFilter("s", "==", "y"))) == []


async def test_a_missing_field_leaves_out_and_null_does_not(client: AsyncClient) -> None:
    assert "".join(await ids(client.collection(DEVICES).order_by("n"))) == "edabcf"


async def test_several_orders_and_the_name_last(client: AsyncClient) -> None:
    query = client.collection(DEVICES).order_by("s", direction="DESCENDING")
    assert "".join(await ids(query)) == "fdcgeba"
    assert "".join(await ids(query.order_by("__name__", direction="ASCENDING"))) == "fcdabeg"
    assert "".join(await ids(query.order_by("n"))) == "fdceab"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"start_at": {"n": 2}}, "bcf"),
        ({"start_after": {"n": 2}}, "cf"),
        ({"end_at": {"n": 2}}, "edab"),
        ({"end_before": {"n": 2}}, "eda"),
        ({"start_after": {"n": 2.4}}, "cf"),
        ({"start_at": {"n": None}, "end_before": {"n": 1}}, "ed"),
        ({"start_at": {"n": "2"}, "end_at": {"n": 1}}, ""),
    ],
)
async def test_cursors(client: AsyncClient, bounds: dict[str, dict[str, Any]], expected: str) -> None:
    query = client.collection(DEVICES).order_by("n")
    for bound, values in bounds.items():
        query = getattr(query, bound)(values)
    assert "".join(await ids(query)) == expected


@pytest.mark.parametrize("direction", ["ASCENDING", "DESCENDING"])
async def test_pages_by_cursor_see_each_document_once(client: AsyncClient, direction: str) -> None:
    query = client.collection(DEVICES).order_by("s", direction=direction).limit(2)
    found: list[str] = []
    page = await query.get()
    while page:
        found += [each.id for each in page]
        # The last one seen may go in the meantime: the cursor holds its place.
        await commit(client, delete(client, f"{DEVICES}/{found[-1]}"))
        page = await query.start_after(page[-1]).get()
    assert "".join(found) == ("abegcdf" if direction == "ASCENDING" else "fdcgeba")


async def test_a_cursor_on_the_name(client: AsyncClient) -> None:
    query = StructuredQuery(from_=[{"collection_id": "devices"}], start_at=Cursor(values=[value("c")]))
    with pytest.raises(exceptions.InvalidArgument, match="reference"):
        await run(client, query)
    last = value(client.document(f"{DEVICES}/c"))
    query.start_at = Cursor(values=[last])
    assert await run(client, query) == ["d", "e", "f", "g"]
    query.start_at = Cursor(values=[last], before=True)
    assert await run(client, query) == ["c", "d", "e", "f", "g"]
    query.start_at = Cursor(values=[last, last])
    with pytest.raises(exceptions.InvalidArgument, match="too many"):
        await run(client, query)


async def test_limit_and_offset(client: AsyncClient, server: FirestoreServer) -> None:
    query = client.collection(DEVICES)
    assert await ids(query.limit(3)) == ["a", "b", "c"]
    assert await ids(query.limit(0)) == []
    server.counts.clear()
    assert await ids(query.offset(5).limit(3)) == ["f", "g"]
    assert server.counts.reads == 7


async def test_projection(client: AsyncClient) -> None:
    (found,) = await client.collection(DEVICES).select(["m.k", "s", "missing"]).limit(1).get()
    assert found.to_dict() == {"m": {"k": 1}, "s": "x"}
    found = await client.document(f"{DEVICES}/a").get(["s"])
    assert found.to_dict() == {"s": "x"}


async def test_collections_are_apart(client: AsyncClient) -> None:
    for path in ("tenants/u/devices/z", "tenants/t/users/z", f"{DEVICES}/a/devices/deep"):
        await commit(client, update(client, path, {"s": "x"}))
    assert "z" not in await ids(client.collection(DEVICES))
    assert len(await ids(client.collection(DEVICES))) == 7
    group = client.collection_group("devices").where(filter=FieldFilter("s", "==", "x"))
    assert await ids(group) == ["a", "deep", "b", "e", "g", "z"]


async def test_the_index_keeps_up_with_writes(client: AsyncClient) -> None:
    query = client.collection(DEVICES).where(filter=FieldFilter("s", "==", "x")).order_by("n")
    assert await ids(query) == ["e", "a", "b"]
    await commit(
        client,
        update(client, f"{DEVICES}/a", {"s": "x", "n": 9}),
        update(client, f"{DEVICES}/e", {"s": "w", "n": 9}),
        update(client, f"{DEVICES}/g", {"s": "x", "n": -9}),
        delete(client, f"{DEVICES}/b"),
    )
    assert await ids(query) == ["g", "a"]


async def test_counts(client: AsyncClient, server: FirestoreServer) -> None:
    async def count(query: Any, up_to: int | None = None) -> int:
        ((found,),) = await (query.count() if up_to is None else query.limit(up_to).count()).get(retry=None)
        return int(found.value)

    query = client.collection(DEVICES)
    assert await count(query) == 7
    assert await count(query, 3) == 3
    assert await count(query.where(filter=FieldFilter("n", ">", 1))) == 2
    assert await count(query.where(filter=FieldFilter("n", "==", 77))) == 0
    assert server.counts.reads == 4
    await put(client, {f"many{number}": {} for number in range(1500)})
    server.counts.clear()
    assert await count(query) == 1507
    assert server.counts.reads == 2


async def test_reads_are_billed(client: AsyncClient, server: FirestoreServer) -> None:
    await ids(client.collection(DEVICES).where(filter=FieldFilter("n", "==", 77)))
    assert server.counts.reads == 1
    await ids(client.collection(DEVICES))
    assert server.counts.reads == 8
    document = client.document(f"{DEVICES}/a")
    found = [each.id async for each in client.get_all([document, client.document(f"{DEVICES}/none"), document])]
    assert sorted(found) == ["a", "none"]
    assert server.counts.reads == 10
    assert dict(server.counts.rpcs) == {"RunQuery": 2, "BatchGetDocuments": 1}


async def test_batches_answer_in_any_order(client: AsyncClient) -> None:
    """What an adapter must not rely upon."""
    found = [each.id async for each in client.get_all([client.document(f"{DEVICES}/{key}") for key in "abc"])]
    assert sorted(found) == ["a", "b", "c"]
    assert found != ["a", "b", "c"]


@pytest.mark.parametrize(
    "filters",
    [
        [FieldFilter("tags", "array_contains", "red"), FieldFilter("tags", "array_contains", "blue")],
        [FieldFilter("n", "in", list(range(31)))],
        [FieldFilter("n", "in", list(range(6))), FieldFilter("s", "in", list("abcdef"))],
        [FieldFilter("n", "in", [])],
        [FieldFilter("n", "not-in", list(range(11)))],
        [FieldFilter("n", "!=", 1), FieldFilter("s", "!=", "x")],
        [FieldFilter("n", "not-in", [1]), FieldFilter("s", "in", ["x"])],
        [Or([FieldFilter("n", "==", 1), FieldFilter("s", "==", "x")])],
        [FieldFilter("__name__", "==", "a")],
    ],
)
async def test_refused_filters(client: AsyncClient, filters: list[Any]) -> None:
    query: Any = client.collection(DEVICES)
    for each in filters:
        query = query.where(filter=each)
    with pytest.raises(exceptions.InvalidArgument):
        await ids(query)


async def test_thirty_disjunctions_are_served(client: AsyncClient) -> None:
    query = client.collection(DEVICES).where(filter=FieldFilter("n", "in", list(range(10))))
    assert await ids(query.where(filter=FieldFilter("s", "in", ["x", "y", "w"]))) == ["a", "b"]


@pytest.mark.parametrize("arguments", [{"limit": -1}, {"offset": -1}, {"order_by": [{"field": {"field_path": "a-b"}}]}])
async def test_malformed_queries(client: AsyncClient, arguments: dict[str, Any]) -> None:
    query = StructuredQuery(from_=[{"collection_id": "devices"}], **arguments)
    with pytest.raises(exceptions.InvalidArgument):
        await run(client, query)


async def test_no_order_goes_on_after_the_name(client: AsyncClient) -> None:
    query = client.collection(DEVICES).order_by("s").order_by("__name__")
    assert "".join(await ids(query)) == "abegcdf"
    for refused in (query.order_by("n"), query.where(filter=FieldFilter("n", ">", 1))):
        with pytest.raises(exceptions.InvalidArgument, match="cannot contain more fields after the key"):
            await ids(refused)


async def test_a_query_by_names(client: AsyncClient) -> None:
    query = client.collection(DEVICES).where(filter=FieldFilter("__name__", ">", client.document(f"{DEVICES}/e")))
    assert await ids(query) == ["f", "g"]
    assert name(client, DEVICES).endswith("/documents/tenants/t/devices")
