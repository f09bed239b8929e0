"""Queries: filters, order, cursors, counts, partitions, and the refusal of what was not declared."""

import asyncio
from dataclasses import replace

import pytest

from chassis.store.port import (
    Create,
    Delete,
    DocumentStore,
    Filter,
    Op,
    Order,
    Put,
    Query,
    UndeclaredQuery,
    Update,
    Value,
)
from tests.conformance.store.backend import Conformance, eq, fill, ids, key, things

RANK = (Order("rank"),)
DOWN = (Order("rank", descending=True),)
NAN = float("nan")


class Queries(Conformance):
    async def test_without_filter_or_order_all_documents_by_id(self, store: DocumentStore) -> None:
        await fill(store, {name: {} for name in ("b", "é", "a", "B", "a\x00", "10", "9", "😀", "\uffff")})
        await fill(store, {"other": {}}, tenant="acme2")
        await store.commit([Create(key("other", collection="things2"), {})])
        expected = ["10", "9", "B", "a", "a\x00", "b", "é", "\uffff", "😀"]
        assert await ids(store, things()) == expected
        assert await ids(store, things(limit=2, after=("B",))) == ["a", "a\x00"]
        assert await ids(store, things(after=("C",))) == expected[3:]
        assert await store.count(things()) == 9

    async def test_equality(self, store: DocumentStore) -> None:
        await fill(store, {"a": {"kind": "x"}, "b": {"kind": "y"}, "c": {"kind": None}, "d": {}, "e": {"kind": NAN}})
        for value, expected in (("x", ["a"]), ("z", []), (None, ["c"]), (NAN, ["e"]), (True, [])):
            assert await ids(store, things(eq("kind", value))) == expected
            assert await store.count(things(eq("kind", value))) == len(expected)

    async def test_a_number_is_not_the_boolean_that_python_takes_it_for(self, store: DocumentStore) -> None:
        await fill(store, {"one": {"kind": 1}, "true": {"kind": True}, "float": {"kind": 1.0}})
        assert await ids(store, things(eq("kind", 1))) == ["float", "one"]
        assert await ids(store, things(eq("kind", True))) == ["true"]
        assert await ids(store, things(eq("kind", 1), eq("kind", True))) == []

    async def test_not_equal_leaves_out_null_and_missing(self, store: DocumentStore) -> None:
        await fill(store, {"a": {"kind": "x"}, "b": {"kind": 1}, "c": {"kind": None}, "d": {}, "e": {"kind": NAN}})
        for value, expected in (("x", ["b", "e"]), (None, ["a", "b", "e"]), (NAN, ["a", "b"]), (9, ["a", "b", "e"])):
            query = things(Filter("kind", Op.NE, value))
            assert await ids(store, query) == expected
            assert await store.count(query) == len(expected)

    async def test_in_merges_and_knows_no_null(self, store: DocumentStore) -> None:
        kinds: dict[str, Value] = {"a": "x", "b": "y", "c": None, "d": "z", "e": "x", "f": NAN}
        await fill(store, {name: {"kind": kind, "rank": -n} for n, (name, kind) in enumerate(kinds.items())})
        query = things(Filter("kind", Op.IN, ["y", "x", "x", None, NAN]))
        assert await ids(store, query) == ["a", "b", "e"]
        assert await store.count(query) == 3
        assert await ids(store, replace(query, order=RANK)) == ["e", "b", "a"]
        assert await ids(store, replace(query, order=RANK, limit=1, after=(-4, "e"))) == ["b"]
        assert await ids(store, things(Filter("kind", Op.IN, []))) == []

    async def test_in_takes_30_values(self, store: DocumentStore) -> None:
        await fill(store, {f"{n:02}": {"kind": n} for n in range(31)})
        assert len(await ids(store, things(Filter("kind", Op.IN, list(range(30)))))) == 30
        with pytest.raises(ValueError, match="30"):
            await store.query(things(Filter("kind", Op.IN, list(range(31)))))

    async def test_contains_finds_one_entry_a_document(self, store: DocumentStore) -> None:
        await fill(
            store,
            {
                "a": {"tags": ["x", "y", "x"], "rank": 2},
                "b": {"tags": ["y"], "rank": 1},
                "c": {"tags": "x"},
                "d": {"tags": [None, {"k": 1}]},
            },
        )
        for value, expected in (("x", ["a"]), ("y", ["a", "b"]), ({"k": 1}, ["d"]), (None, []), ("z", [])):
            query = things(Filter("tags", Op.CONTAINS, value))
            assert await ids(store, query) == expected
            assert await store.count(query) == len(expected)
        assert await ids(store, things(Filter("tags", Op.CONTAINS, "y"), order=RANK)) == ["b", "a"]
        both = things(Filter("tags", Op.CONTAINS, "y"), Filter("tags", Op.CONTAINS, "x"))
        assert await ids(store, both) == ["a"]
        assert await store.count(both) == 1

    async def test_documents_without_an_ordered_field_are_left_out(self, store: DocumentStore) -> None:
        await fill(store, {"a": {"rank": 1}, "b": {}, "c": {"rank": None}})
        assert await ids(store, things(order=RANK)) == ["c", "a"]

    async def test_ties_are_broken_by_id_in_the_last_direction(self, store: DocumentStore) -> None:
        await fill(store, {name: {"rank": 1, "born": 1} for name in "abc"})
        assert await ids(store, things(order=RANK)) == ["a", "b", "c"]
        assert await ids(store, things(order=DOWN)) == ["c", "b", "a"]
        assert await ids(store, things(order=DOWN, after=(1, "b"))) == ["a"]

    async def test_mixed_directions(self, store: DocumentStore) -> None:
        await fill(
            store,
            {"a": {"rank": 1, "born": 2}, "b": {"rank": 2, "born": 1}, "c": {"rank": 1, "born": 1}, "d": {"rank": 3}},
        )
        order = (Order("rank", descending=True), Order("born"))
        assert await ids(store, things(order=order)) == ["b", "c", "a"]
        assert await ids(store, things(order=order, after=(1, 1, "c"))) == ["a"]

    async def test_indexes_intersect(self, store: DocumentStore) -> None:
        """No index has kind and state in this order: each has one that goes on with the whole order."""
        await fill(
            store,
            {f"{n:03}": {"kind": n % 2, "state": n % 3, "rank": -n, "born": n, "tags": [n % 5]} for n in range(300)},
        )
        expected = [f"{n:03}" for n in range(299, -1, -1) if n % 2 == 1 and n % 3 == 2 and n % 5 == 0]
        query = things(eq("kind", 1), eq("state", 2), Filter("tags", Op.CONTAINS, 0), order=RANK, limit=4)
        assert await ids(store, query) == expected[:4]
        after = (-int(expected[3]), expected[3])
        assert await ids(store, replace(query, after=after, limit=99)) == expected[4:]
        assert await store.count(query) == len(expected)

    async def test_a_range_is_within_the_first_order(self, store: DocumentStore) -> None:
        await fill(store, {f"{n}": {"rank": n, "kind": "x"} for n in range(9)})
        between = (Filter("rank", Op.GT, 2), Filter("rank", Op.LE, 6))
        assert await ids(store, things(*between, order=RANK)) == ["3", "4", "5", "6"]
        assert await ids(store, things(*between, order=DOWN, after=(5, "5"))) == ["4", "3"]
        assert await ids(store, things(eq("kind", "x"), *between, order=RANK, limit=2)) == ["3", "4"]
        assert await store.count(things(eq("kind", "x"), *between)) == 4
        assert await ids(store, things(*between, Filter("rank", Op.LT, 3), order=RANK)) == []

    async def test_count_looks_at_filters_alone(self, store: DocumentStore) -> None:
        await fill(store, {"a": {"kind": "x"}, "b": {"kind": "x", "rank": 1}, "c": {"kind": "y"}})
        query = things(eq("kind", "x"), order=(Order("nowhere"),), after=("z", "z"), limit=1)
        assert await store.count(query) == 2

    async def test_undeclared_queries_are_refused_empty_or_not(self, store: DocumentStore) -> None:
        undeclared = (
            things(eq("unknown", 1)),
            things(eq("kind", 1), eq("unknown", 1)),
            things(order=(Order("born"),)),
            things(order=(Order("rank"), Order("born"))),
            things(eq("kind", 1), order=(Order("rank"), Order("born", descending=True))),
            things(eq("tags", "x")),
            things(Filter("kind", Op.CONTAINS, "x")),
            things(Filter("rank", Op.GT, 1)),
            things(Filter("kind", Op.GT, 1), order=RANK),
            things(eq("state", 1), order=DOWN),
            Query("acme", "elsewhere", (eq("kind", 1),)),
        )
        for query in undeclared:
            with pytest.raises(UndeclaredQuery):
                await store.query(query)
        for query in (*undeclared[:2], *undeclared[5:7], undeclared[10], things(Filter("born", Op.GT, 1))):
            with pytest.raises(UndeclaredQuery):
                await store.count(query)

    @pytest.mark.parametrize(
        "query",
        [things(limit=0), things(after=()), things(order=RANK, after=("a",)), things(order=RANK, after=(1, 2))],
    )
    async def test_what_is_no_query_is_refused(self, store: DocumentStore, query: Query) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are each engine's own
            await store.query(query)

    async def test_indexes_follow_every_write(self, store: DocumentStore) -> None:
        await store.commit([Create(key("a"), {"kind": "x", "rank": 1})])
        await store.commit([Update(key("a"), {"kind": "y", "rank": 1})])
        assert await ids(store, things(eq("kind", "x"))) == []
        assert await ids(store, things(eq("kind", "y"), order=RANK)) == ["a"]
        await store.commit([Put(key("a"), {"rank": 1})])
        assert await ids(store, things(eq("kind", "y"))) == []
        await store.commit([Delete(key("a"))])
        assert await ids(store, things(order=RANK)) == []

    async def test_no_query_crosses_tenants(self, store: DocumentStore) -> None:
        for tenant in ("acme", "acm", "acmee", "acme\x00"):
            await fill(store, {f"of {tenant}": {"kind": "x", "rank": 1, "tags": ["t"]}}, tenant)
        for query in (
            things(),
            things(eq("kind", "x")),
            things(Filter("kind", Op.NE, "y")),
            things(order=RANK),
            things(Filter("tags", Op.CONTAINS, "t")),
        ):
            assert await ids(store, query) == ["of acme"]
            assert await store.count(query) == 1

    async def test_pages_skip_and_repeat_nothing_under_inserts(self, store: DocumentStore) -> None:
        await fill(store, {f"old{n:03}": {"rank": n * 7 % 100, "kind": "x"} for n in range(200)})
        paging = asyncio.Event()

        async def insert() -> None:
            for n in range(200):
                await store.commit([Create(key(f"new{n:03}"), {"rank": n * 13 % 100, "kind": "x"})])
                paging.set()

        writing = asyncio.create_task(insert())
        await paging.wait()
        query = things(eq("kind", "x"), order=DOWN, limit=7)
        seen: list[str] = []
        while page := await store.query(query):
            seen += [document.key.id for document in page]
            query = replace(query, after=(page[-1].fields["rank"], page[-1].key.id))
        await writing
        assert len(seen) == len(set(seen))
        assert {name for name in seen if name.startswith("old")} == {f"old{n:03}" for n in range(200)}

    async def test_a_cursor_holds_when_its_document_is_gone(self, store: DocumentStore) -> None:
        await fill(store, {name: {"rank": 1} for name in "abc"})
        await store.commit([Delete(key("b"))])
        assert await ids(store, things(order=RANK, after=(1, "b"))) == ["c"]

    async def test_a_page_of_more_than_one_statement(self, store: DocumentStore) -> None:
        await fill(store, {f"{n:03}": {"rank": n, "kind": "x"} for n in range(450)})
        names = [f"{n:03}" for n in range(450)]
        for query in (things(), things(order=RANK), things(eq("kind", "x"))):
            assert await ids(store, replace(query, limit=1000)) == names
            assert await ids(store, replace(query, limit=333)) == names[:333]

    async def test_reads_see_what_was_acknowledged(self, store: DocumentStore) -> None:
        for n in range(50):
            await store.commit([Put(key("a"), {"kind": n})])
            found = await store.get(key("a"))
            assert found is not None
            assert found.fields == {"kind": n}
            assert await ids(store, things(eq("kind", n))) == ["a"]
