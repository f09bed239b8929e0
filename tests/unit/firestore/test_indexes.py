"""Which queries run on which indexes: the published examples, merging, exemptions."""

from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1.base_query import FieldFilter
from google.cloud.firestore_v1.types import StructuredQuery

from tests.firestore.documents import Documents
from tests.firestore.indexes import Indexes
from tests.firestore.limits import Limits
from tests.firestore.query import run as run_query
from tests.firestore.wire import Refused
from tests.support.firestore import client_of, serving
from tests.unit.firestore.calls import DEVICES, ids, put

_PREFIX = "projects/p/databases/d/documents"
_OPS = {"==": "EQUAL", "<": "LESS_THAN", ">": "GREATER_THAN", "!=": "NOT_EQUAL", "in": "IN", "has": "ARRAY_CONTAINS"}


def _query(text: str) -> Any:
    """`a == b has c > | x -y`: the filters' fields and operators, then the order; `-` is descending."""
    where, _, order = text.partition("|")
    words = where.split()
    filters = []
    for path, op in zip(words[::2], words[1::2], strict=True):
        one = {"integer_value": 1}
        operand = {"array_value": {"values": [one]}} if op == "in" else one
        filters.append({"field_filter": {"field": {"field_path": path}, "op": _OPS[op], "value": operand}})
    query = StructuredQuery(
        from_=[{"collection_id": "cities"}],
        where={"composite_filter": {"op": "AND", "filters": filters}} if filters else None,
        order_by=[
            {"field": {"field_path": each.lstrip("-")}, "direction": "DESCENDING" if each[0] == "-" else "ASCENDING"}
            for each in order.split()
        ],
    )
    return StructuredQuery.pb(query)


def _indexes(*declared: str, **overrides: list[dict[str, str]]) -> Indexes:
    """Each `a -b [c]`: ascending, descending, array-contains."""
    entries = []
    for each in declared:
        fields: list[dict[str, str]] = []
        for word in each.split():
            if word[0] == "[":
                fields.append({"fieldPath": word.strip("[]"), "arrayConfig": "CONTAINS"})
            else:
                order = "DESCENDING" if word[0] == "-" else "ASCENDING"
                fields.append({"fieldPath": word.lstrip("-"), "order": order})
        entries.append({"collectionGroup": "cities", "queryScope": "COLLECTION", "fields": fields})
    exempt = [{"collectionGroup": "cities", "fieldPath": path, "indexes": modes} for path, modes in overrides.items()]
    return Indexes({"indexes": entries, "fieldOverrides": exempt})


def _served(query: str, indexes: Indexes) -> bool:
    try:
        run_query(_PREFIX, _query(query), Documents(_PREFIX, Limits()), indexes)
    except Refused as refused:
        if refused.code is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return False
    return True


@pytest.mark.parametrize(
    "query",
    [
        "",
        "a ==",
        "a == b == c ==",
        "a == tags has",
        "a in b ==",
        "a > a <",
        "a !=",
        "| a",
        "| -a",
        "a > | a",
        "a > | -a",
        "a in | a",
        "a == | a",
        "a == | -__name__",
        "tags has | -__name__",
        "m.k == m.l ==",
    ],
)
def test_served_by_automatic_indexes(query: str) -> None:
    assert _served(query, _indexes())


@pytest.mark.parametrize(
    "query",
    [
        "a == | b",
        "a == b >",
        "| a b",
        "a > b >",
        "tags has | a",
        "a in | b",
        "a != | b",
        "| -__name__",
    ],
)
def test_not_served_without_a_composite_index(query: str) -> None:
    assert not _served(query, _indexes())


@pytest.mark.parametrize(
    ("declared", "query"),
    [
        ("a b", "a == | b"),
        ("-a b", "a == | b"),
        ("a b", "a == b >"),
        ("a b", "a in | b"),
        ("a -b", "a == | -b"),
        ("a -b", "a == b > | -b"),
        ("a b c", "a == b == | c"),
        ("b a c", "a == b == | c"),
        ("a b c", "a == | b c"),
        ("[tags] a", "tags has | a"),
        ("[tags] a b", "tags has a == | b"),
        ("b a", "a != | b"),
        ("a b", "a > b >"),
        ("m.k b", "m.k == | b"),
        ("a b __name__", "a == | b"),
        ("a b -__name__", "a == | b -__name__"),
    ],
)
def test_served_by_a_composite_index(declared: str, query: str) -> None:
    assert not _served(query, _indexes())
    assert _served(query, _indexes(declared))


@pytest.mark.parametrize(
    ("declared", "query"),
    [
        ("a b", "a == | -b"),
        ("a b", "| b a"),
        ("a b c", "a == | b"),
        ("a b c", "a == | c"),
        ("a b", "a == c == | b"),
        ("b a", "a == | b"),
        ("a tags b", "a == tags has | b"),
        ("a b", "a == | b -__name__"),
        ("b a", "a > b >"),
    ],
)
def test_not_served_by_another_index(declared: str, query: str) -> None:
    assert not _served(query, _indexes(declared))


def test_indexes_are_merged() -> None:
    """Each covers some of the equalities and goes on with the whole order."""
    assert _served("a == b == | c", _indexes("a c", "b c"))
    assert _served("a == b == tags has | -c", _indexes("a b -c", "[tags] -c"))
    assert not _served("a == b == | c", _indexes("a c", "b -c"))
    assert not _served("a == b == | c", _indexes("a c"))


def test_an_exempted_field_is_searched_only_by_composite_indexes() -> None:
    assert not _served("a ==", _indexes(a=[]))
    assert not _served("| a", _indexes(a=[]))
    assert not _served("m.k ==", _indexes(m=[]))
    assert _served("a == b ==", _indexes("a b", a=[]))
    only = [{"queryScope": "COLLECTION", "order": "DESCENDING"}]
    assert _served("| -a", _indexes(a=only))
    assert not _served("| a", _indexes(a=only))
    assert _served("a ==", Indexes({"fieldOverrides": [{"collectionGroup": "cities", "fieldPath": "a", "ttl": True}]}))


def test_collection_groups_have_no_automatic_indexes() -> None:
    query = _query("a ==")
    query.from_[0].all_descendants = True
    documents = Documents(_PREFIX, Limits())
    with pytest.raises(Refused, match="requires an index"):
        run_query(_PREFIX, query, documents, _indexes())
    scoped = [{"queryScope": "COLLECTION_GROUP", "order": "ASCENDING"}]
    assert not run_query(_PREFIX, query, documents, _indexes(a=scoped)).documents


def test_a_second_array_field_is_refused() -> None:
    with pytest.raises(ValueError, match="at most one array"):
        _indexes("[a] [b]")


async def test_the_refusal_reaches_the_client() -> None:
    declared = {
        "collectionGroup": "devices",
        "queryScope": "COLLECTION",
        "fields": [{"fieldPath": "s", "order": "ASCENDING"}, {"fieldPath": "n", "order": "ASCENDING"}],
    }
    async with serving(indexes={"indexes": [declared]}) as server, client_of(server.address) as client:
        await put(client, {"a": {"s": "x", "n": 2}, "b": {"s": "x", "n": 1}})
        query: Any = client.collection(DEVICES).where(filter=FieldFilter("s", "==", "x"))
        assert await ids(query.order_by("n")) == ["b", "a"]
        with pytest.raises(exceptions.FailedPrecondition, match=r"The query requires an index\. .*devices.*n DESC"):
            await ids(query.order_by("n", direction="DESCENDING"))
        with pytest.raises(exceptions.FailedPrecondition, match="The query requires an index"):
            await query.where(filter=FieldFilter("m", ">", 1)).count().get(retry=None)
