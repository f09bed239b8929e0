"""Writes: preconditions, atomic batches, limits, versions, conflicts under concurrency."""

import asyncio

import pytest

from chassis.store.port import (
    Create,
    Delete,
    DocumentExists,
    DocumentMissing,
    DocumentStore,
    DocumentTooLarge,
    PreconditionFailed,
    Put,
    StoreUnavailable,
    Update,
    Value,
    VersionConflict,
    Write,
)
from tests.conformance.store.backend import Conformance, fill, key

MIB = 1024 * 1024


class Commits(Conformance):
    async def test_create_refuses_an_existing_key(self, store: DocumentStore) -> None:
        await store.commit([Create(key("a"), {"n": 1})])
        with pytest.raises(DocumentExists) as refused:
            await store.commit([Create(key("a"), {"n": 2})])
        assert refused.value.key == key("a")
        found = await store.get(key("a"))
        assert found is not None
        assert found.fields == {"n": 1}

    @pytest.mark.parametrize("write", [Update(key("a"), {}), Delete(key("a"), must_exist=True)])
    async def test_a_missing_document_is_missing(self, store: DocumentStore, write: Write) -> None:
        with pytest.raises(DocumentMissing):
            await store.commit([write])
        assert await store.get(key("a")) is None

    @pytest.mark.parametrize("write", [Update(key("a"), {}, version="1"), Delete(key("a"), version="1")])
    async def test_a_version_of_a_missing_document_conflicts(self, store: DocumentStore, write: Write) -> None:
        with pytest.raises(VersionConflict):
            await store.commit([write])

    async def test_the_version_changes_with_every_write_and_is_checked(self, store: DocumentStore) -> None:
        first = (await store.commit([Create(key("a"), {"n": 1})])).versions[0]
        second = (await store.commit([Update(key("a"), {"n": 1}, version=first)])).versions[0]
        assert second != first
        for write in (Update(key("a"), {"n": 3}, version=first), Delete(key("a"), version=first)):
            with pytest.raises(VersionConflict):
                await store.commit([write])
        found = await store.get(key("a"))
        assert found is not None
        assert (found.version, found.fields) == (second, {"n": 1})
        await store.commit([Delete(key("a"), version=second)])
        third = (await store.commit([Create(key("a"), {"n": 1})])).versions[0]
        assert third not in {first, second}

    async def test_update_and_put_replace_the_document_whole(self, store: DocumentStore) -> None:
        await store.commit([Put(key("a"), {"old": 1})])
        await store.commit([Put(key("a"), {"new": 2})])
        await store.commit([Update(key("a"), {"newer": 3})])
        found = await store.get(key("a"))
        assert found is not None
        assert found.fields == {"newer": 3}

    async def test_delete_of_an_absent_document_is_nothing(self, store: DocumentStore) -> None:
        assert (await store.commit([Delete(key("a"))])).versions == ("",)

    async def test_a_batch_is_applied_whole_or_not_at_all(self, store: DocumentStore) -> None:
        await fill(store, {"b": {"n": 1}})
        with pytest.raises(DocumentExists) as refused:
            await store.commit([Create(key("a"), {}), Create(key("b"), {}), Update(key("c"), {})])
        assert refused.value.key == key("b")
        assert await store.get(key("a")) is None

    async def test_a_batch_spans_tenants_and_collections(self, store: DocumentStore) -> None:
        keys = [key("a"), key("a", tenant="other"), key("a", collection="passing")]
        answer = await store.commit([Create(each, {"of": each.tenant}) for each in keys])
        assert len(answer.versions) == 3
        found = await store.get_many([*keys, key("nobody"), keys[0]])
        assert [document and document.key for document in found] == [*keys, None, keys[0]]

    async def test_all_writes_of_a_commit_share_one_version(self, store: DocumentStore) -> None:
        await fill(store, {"old": {}, "gone": {}})
        writes: list[Write] = [Create(key(f"k{n}"), {}) for n in range(40)]
        more: list[Write] = [Update(key("old"), {"n": 1}), Put(key("a", tenant="other"), {}), Delete(key("gone"))]
        answer = await store.commit([*writes, *more])
        assert set(answer.versions[:-1]) == {answer.versions[0]}
        assert answer.versions[-1] == ""
        found = await store.get_many([write.key for write in (*writes, *more[:-1])])
        assert {document and document.version for document in found} == {answer.versions[0]}

    async def test_versions_compare_as_text_in_the_order_of_the_commits(self, store: DocumentStore) -> None:
        versions: list[str] = []
        for number in range(20):
            # Of other keys and tenants, too, and of commits that others overtake.
            among = [store.commit([Put(key(f"{number}-{each}", f"tenant{each}"), {})]) for each in range(4)]
            versions.append(max(max(each.versions) for each in await asyncio.gather(*among)))
            versions += (await store.commit([Put(key("one"), {"n": number})])).versions
            found = await store.get(key("one"))
            assert found is not None
            assert found.version == versions[-1]
        assert versions == sorted(set(versions))

    async def test_commit_times_never_go_backwards(self, store: DocumentStore) -> None:
        times = [(await store.commit([Put(key("a"), {"n": n})])).commit_time for n in range(5)]
        assert times == sorted(times)
        assert all(time.tzinfo is not None for time in times)

    @pytest.mark.parametrize("count", [0, 501])
    async def test_a_commit_has_1_to_500_writes(self, store: DocumentStore, count: int) -> None:
        with pytest.raises(ValueError, match="500"):
            await store.commit([Create(key(f"k{n}"), {}) for n in range(count)])

    async def test_500_writes_are_one_commit(self, store: DocumentStore) -> None:
        await store.commit([Create(key(f"k{n}"), {"kind": "x"}) for n in range(500)])
        found = await store.get_many([key(f"k{n}") for n in range(500)])
        assert None not in found
        with pytest.raises(ValueError, match="500"):
            await store.get_many([key("a")] * 501)

    async def test_a_key_is_written_once_in_a_commit(self, store: DocumentStore) -> None:
        with pytest.raises(ValueError, match="once"):
            await store.commit([Create(key("a"), {}), Delete(key("a"))])

    async def test_a_document_holds_up_to_1_mib(self, store: DocumentStore) -> None:
        """Names and overhead count by Firestore's accounting: 48 + 8 + 5 + 7 + 2, and 2 for the field's name."""
        room = MIB - (48 + 8 + 5 + 7 + 2 + 2)
        await store.commit([Create(key("a"), {"f": b"x" * room})])
        found = await store.get(key("a"))
        assert found is not None
        assert found.fields == {"f": b"x" * room}
        with pytest.raises(DocumentTooLarge):
            await store.commit([Create(key("b"), {"f": b"x" * (room + 1)})])
        with pytest.raises(DocumentTooLarge):
            await store.commit([Create(key("b"), {"f": "é" * (room // 2 + 1)})])
        assert await store.get(key("b")) is None

    async def test_a_commit_holds_up_to_10_mib(self, store: DocumentStore) -> None:
        with pytest.raises(DocumentTooLarge):
            await store.commit([Create(key(f"k{n}"), {"f": b"x" * (MIB - 100)}) for n in range(11)])
        assert await store.get(key("k0")) is None

    async def test_no_update_is_lost(self, store: DocumentStore) -> None:
        await store.commit([Create(key("counter"), {"n": 0})])

        async def increment() -> None:
            for _ in range(5):
                while True:
                    found = await store.get(key("counter"))
                    assert found is not None
                    count = found.fields["n"]
                    assert isinstance(count, int)
                    try:
                        await store.commit([Update(key("counter"), {"n": count + 1}, version=found.version)])
                    except VersionConflict:
                        continue
                    break

        await asyncio.gather(*(increment() for _ in range(8)))
        found = await store.get(key("counter"))
        assert found is not None
        assert found.fields["n"] == 40

    async def test_one_of_many_creates_wins(self, store: DocumentStore) -> None:
        async def create(n: int) -> bool:
            try:
                await store.commit([Create(key("one"), {"by": n}), Create(key(f"own{n}"), {})])
            except DocumentExists:
                return False
            return True

        won = await asyncio.gather(*(create(n) for n in range(20)))
        assert sum(won) == 1
        there = await store.get_many([key(f"own{n}") for n in range(20)])
        assert [document is not None for document in there] == list(won)

    async def test_a_refused_commit_fails_for_nobody_else(self, store: DocumentStore) -> None:
        await fill(store, {"taken": {}})
        names = ["taken" if n % 3 == 0 else f"k{n}" for n in range(30)]
        outcomes = await asyncio.gather(
            *(store.commit([Create(key(name), {})]) for name in names), return_exceptions=True
        )
        assert [isinstance(outcome, PreconditionFailed) for outcome in outcomes] == [name == "taken" for name in names]

    async def test_what_was_given_and_what_was_read_share_nothing(self, store: DocumentStore) -> None:
        items: list[Value] = [1]
        given: dict[str, Value] = {"list": items, "map": {"a": 1}}
        await store.commit([Create(key("a"), given)])
        items.append(2)
        first = await store.get(key("a"))
        assert first is not None
        first.fields["map"]["b"] = 2  # type: ignore[index]  # engines may return plain dicts
        second = await store.get(key("a"))
        assert second is not None
        assert second.fields == {"list": [1], "map": {"a": 1}}

    async def test_a_closed_store_is_unavailable(self, store: DocumentStore) -> None:
        accepted = asyncio.gather(*(store.commit([Create(key(f"k{n}"), {})]) for n in range(5)))
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert len(await accepted) == 5
        with pytest.raises(StoreUnavailable):
            await store.get(key("a"))
        with pytest.raises(StoreUnavailable):
            await store.commit([Put(key("a"), {})])
