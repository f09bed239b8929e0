"""The Firestore store when the database refuses, hangs, breaks off, or loses an answer."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.errors import ApiError
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_indexes import definition
from chassis.store.port import (
    Create,
    Delete,
    Document,
    DocumentExists,
    DocumentMissing,
    DocumentStore,
    DocumentTooLarge,
    Filter,
    Index,
    Op,
    Order,
    Put,
    Query,
    StoreCorrupt,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    Update,
    VersionConflict,
)
from tests.conformance.store.backend import SCHEMA, fill, ids, key, things
from tests.firestore_server import FirestoreServer, Limits, faults
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.firestore import firestore_server, serving

__all__ = ["firestore_server"]

BUDGET = patience.STORE
Status = grpc.StatusCode


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreServer]:
    async with serving(indexes=definition({"": SCHEMA})) as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        yield server


async def opened(budget: Store = BUDGET) -> FirestoreStore:
    return await FirestoreStore.open(
        "test", "(default)", SCHEMA, clock=SystemClock(), budget=budget, random_bytes=secrets.token_bytes
    )


@pytest.fixture
async def store(server: FirestoreServer) -> AsyncIterator[FirestoreStore]:
    store = await opened()
    server.counts.clear()
    yield store
    await store.close()


OPERATIONS: dict[str, tuple[str, Callable[[DocumentStore], Awaitable[object]]]] = {
    "get": ("BatchGetDocuments", lambda store: store.get(key("a"))),
    "get_many": ("BatchGetDocuments", lambda store: store.get_many([key("a"), key("b")])),
    "query": ("RunQuery", lambda store: store.query(things())),
    "count": ("RunAggregationQuery", lambda store: store.count(things())),
    "commit": ("Commit", lambda store: store.commit([Put(key("a"), {"n": 1})])),
}
ANSWERS: dict[Status, tuple[type[ApiError], int]] = {
    Status.UNAVAILABLE: (StoreUnavailable, 3),
    Status.DEADLINE_EXCEEDED: (StoreTimeout, 1),
    Status.RESOURCE_EXHAUSTED: (StoreFull, 1),
    Status.PERMISSION_DENIED: (StoreUnavailable, 1),
    Status.UNAUTHENTICATED: (StoreUnavailable, 1),
    Status.INTERNAL: (StoreUnavailable, 1),
    Status.UNKNOWN: (StoreUnavailable, 1),
    Status.DATA_LOSS: (StoreCorrupt, 1),
    Status.INVALID_ARGUMENT: (ApiError, 1),
    Status.UNIMPLEMENTED: (ApiError, 1),
    Status.OUT_OF_RANGE: (ApiError, 1),
    Status.CANCELLED: (StoreTimeout, 1),
}
"""Status → the port's error, and attempts."""


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", ANSWERS, ids=lambda status: status.name)
async def test_each_status_is_one_error(
    server: FirestoreServer, store: FirestoreStore, operation: str, status: Status
) -> None:
    rpc, call = OPERATIONS[operation]
    error, attempts = ANSWERS[status]
    server.faults.add(rpc, faults.status(status, "projects/secret/databases/x"), times=None)
    with pytest.raises(error) as failed:
        await call(store)
    assert "secret" not in failed.value.message
    assert server.counts.rpcs[rpc] == attempts


async def test_storms_of_aborts_end_as_a_conflict_after_three_attempts(
    server: FirestoreServer, store: FirestoreStore
) -> None:
    server.faults.add("Commit", faults.status(Status.ABORTED), times=None)
    with pytest.raises(VersionConflict) as refused:
        await store.commit([Put(key("a"), {}), Update(key("b"), {}, version="1")])
    assert refused.value.key == key("b")
    assert server.counts.rpcs["Commit"] == 3
    server.faults.clear()
    server.faults.add("Commit", faults.status(Status.ABORTED), times=2)
    await store.commit([Put(key("a"), {})])


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_what_fails_twice_succeeds(server: FirestoreServer, store: FirestoreStore, operation: str) -> None:
    rpc, call = OPERATIONS[operation]
    server.faults.add(rpc, faults.unavailable(), times=2)
    await call(store)
    assert server.counts.rpcs[rpc] == 3


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("seconds", [0.05, 0.2])
async def test_a_hung_call_ends_with_its_deadline(server: FirestoreServer, operation: str, seconds: float) -> None:
    rpc, call = OPERATIONS[operation]
    clock = SystemClock()
    store = await opened(replace(BUDGET, read_timeout=Seconds(seconds), write_timeout=Seconds(seconds)))
    server.counts.clear()
    took = []
    for _ in range(30):  # the best of many: the machine may be busy with other tests
        server.faults.clear()
        server.faults.add(rpc, faults.unavailable())
        server.faults.add(rpc, faults.hang(), times=None)
        server.counts.clear()
        began = clock.monotonic()
        with pytest.raises((StoreTimeout, StoreUnavailable)):
            await call(store)
        took.append(clock.monotonic() - began)
        assert server.counts.rpcs[rpc] <= 3
        assert all(attempt.budget is not None and attempt.budget < seconds + 0.02 for attempt in server.counts.attempts)
        if took[-1] < seconds + 0.05:
            break
    assert min(took) < seconds + 0.05
    await store.close()


@pytest.mark.parametrize("results", [0, 1, 3])
@pytest.mark.parametrize("query", [things(), things(Filter("kind", Op.NE, "y"))], ids=["page", "residual"])
async def test_a_stream_that_breaks_is_begun_anew(
    server: FirestoreServer, store: FirestoreStore, results: int, query: object
) -> None:
    await fill(store, {name: {"kind": "x"} for name in "abcde"})
    server.faults.add("RunQuery", faults.broken_stream(results))
    server.faults.add("BatchGetDocuments", faults.broken_stream(results))
    assert await ids(store, query) == list("abcde")  # type: ignore[arg-type]  # it is a query
    found = await store.get_many([key(name) for name in "abcde"])
    assert [document and document.key.id for document in found] == list("abcde")
    server.faults.clear()
    server.faults.add("RunQuery", faults.broken_stream(results), times=None)
    with pytest.raises(StoreUnavailable):
        await store.query(things())


class TestAnswerLost:
    """The commit is applied, and the answer says UNAVAILABLE."""

    @pytest.mark.parametrize("times", [1, 2])
    async def test_a_create_is_recognized(self, server: FirestoreServer, store: FirestoreStore, times: int) -> None:
        server.faults.add("Commit", faults.answer_lost(), times=times)
        answer = await store.commit([Create(key("a"), {"n": 1}), Create(key("b"), {"n": 1})])
        found = await store.get(key("a"))
        assert found is not None
        assert answer.versions == (found.version, found.version)
        assert server.counts.writes == 2

    async def test_an_update_and_what_goes_with_it_is_recognized(
        self, server: FirestoreServer, store: FirestoreStore
    ) -> None:
        first = await store.commit([Create(key("a"), {"n": 1}), Create(key("b"), {})])
        server.faults.add("Commit", faults.answer_lost())
        answer = await store.commit(
            [
                Update(key("a"), {"n": 1}, version=first.versions[0]),
                Delete(key("b"), must_exist=True),
                Put(key("c"), {}),
            ]
        )
        found = await store.get(key("a"))
        assert found is not None
        assert answer.versions == (found.version, "", found.version)
        assert await store.get(key("b")) is None

    async def test_a_put_is_written_once(self, server: FirestoreServer, store: FirestoreStore) -> None:
        server.faults.add("Commit", faults.answer_lost())
        await store.commit([Put(key("a"), {"n": 1})])
        assert server.counts.writes == 1

    async def test_a_delete_is_done(self, server: FirestoreServer, store: FirestoreStore) -> None:
        await fill(store, {"a": {}})
        server.faults.add("Commit", faults.answer_lost())
        assert (await store.commit([Delete(key("a"))])).versions == ("",)

    async def test_a_true_conflict_stays_one(self, server: FirestoreServer, store: FirestoreStore) -> None:
        """The first attempt was lost before it was applied, and somebody else had been faster anyway."""
        await fill(store, {"a": {"by": "other"}})
        server.faults.add("Commit", faults.unavailable())
        with pytest.raises(DocumentExists):
            await store.commit([Create(key("a"), {"by": "us"})])
        server.faults.add("Commit", faults.unavailable())
        with pytest.raises(VersionConflict):
            await store.commit([Update(key("a"), {"by": "us"}, version="5")])

    async def test_when_nobody_can_tell_nobody_is_told(self, server: FirestoreServer, store: FirestoreStore) -> None:
        """Applied, overwritten by another, and then asked again: neither conflict nor success would be true."""
        other = await opened()
        first = await store.commit([Create(key("a"), {"n": 0})])
        applied = asyncio.Event()

        async def overwritten() -> None:
            await applied.wait()
            await other.commit([Put(key("a"), {"n": 2})])

        for write in (Update(key("a"), {"n": 1}, version=first.versions[0]), Put(key("a"), {"n": 1})):
            applied.clear()
            server.faults.add("Commit", faults.answer_lost())
            writing = asyncio.create_task(overwritten())
            store._retrier._clock = _Pausing(applied, writing)
            with pytest.raises(StoreUnavailable, match="cannot be told"):
                await store.commit([write])
            assert await _n(store) == 2
        await other.close()

    async def test_increments_are_neither_lost_nor_doubled(self, server: FirestoreServer) -> None:
        store = await opened()
        await store.commit([Create(key("a"), {"n": 0})])
        done = unknown = 0

        async def increment(number: int) -> None:
            nonlocal done, unknown
            for turn in range(10):
                if (turn + number) % 3 == 0:
                    server.faults.add("Commit", faults.answer_lost())
                while True:
                    found = await store.get(key("a"))
                    assert found is not None
                    count = found.fields["n"]
                    assert isinstance(count, int)
                    try:
                        await store.commit([Update(key("a"), {"n": count + 1}, version=found.version)])
                    except VersionConflict:
                        continue
                    except StoreUnavailable:
                        unknown += 1
                    else:
                        done += 1
                    break

        await asyncio.gather(*(increment(number) for number in range(5)))
        found = await store.get(key("a"))
        assert found is not None
        total = found.fields["n"]
        assert isinstance(total, int)
        assert done <= total <= done + unknown
        await store.close()


class _Pausing(SystemClock):
    """A pause between attempts is as long as another needs to write."""

    __slots__ = ("_begun", "_done")

    def __init__(self, begun: asyncio.Event, done: "asyncio.Task[None]") -> None:
        self._begun = begun
        self._done = done

    async def sleep(self, seconds: float) -> None:
        self._begun.set()
        await self._done


async def _n(store: FirestoreStore) -> object:
    found = await store.get(key("a"))
    assert found is not None
    return found.fields["n"]


async def test_a_refusal_names_the_first_write_that_does_not_hold(store: FirestoreStore) -> None:
    await fill(store, {"a": {}, "b": {}})
    with pytest.raises(DocumentMissing) as missing:
        await store.commit([Put(key("x"), {}), Update(key("c"), {}), Create(key("a"), {})])
    assert missing.value.key == key("c")
    with pytest.raises(VersionConflict) as conflict:
        await store.commit([Update(key("a"), {}), Delete(key("b"), version="7")])
    assert conflict.value.key == key("b")


async def test_the_servers_clock_is_no_matter(server: FirestoreServer, store: FirestoreStore) -> None:
    for skew in (timedelta(days=-1000), timedelta(hours=1), timedelta(hours=-1)):
        server.skew = skew
        first = await store.commit([Put(key("a"), {"n": 1})])
        server.faults.add("Commit", faults.answer_lost())
        second = await store.commit([Update(key("a"), {"n": 2}, version=first.versions[0])])
        assert second.commit_time > first.commit_time
        with pytest.raises(VersionConflict):
            await store.commit([Update(key("a"), {}, version=first.versions[0])])


@pytest.mark.parametrize("name", ["a.b", "`", "a/b", "\\", "a`b\\.c", "é x", "_commit", "__x__", "*", "1st"])
async def test_fields_of_any_name_are_filtered_and_ordered_by(firestore_server: FirestoreServer, name: str) -> None:
    schema = replace(SCHEMA, indexes=(Index("things", (name,)), Index("things", (), (Order(name),))))
    store = await FirestoreStore.open(
        "test", "(default)", schema, clock=SystemClock(), budget=BUDGET, random_bytes=secrets.token_bytes
    )
    await fill(store, {"a": {name: 2}, "b": {name: 1}})
    assert await ids(store, things(Filter(name, Op.EQ, 1))) == ["b"]
    assert await ids(store, Query("acme", "things", order=(Order(name),))) == ["b", "a"]
    await store.close()


async def test_a_limit_that_only_the_server_sees_is_a_document_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(limits=Limits(document_bytes=500), any_query=True) as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        store = await opened()
        with pytest.raises(DocumentTooLarge):
            await store.commit([Create(key("a"), {"x": "y" * 600})])
        assert await store.get(key("a")) is None
        await store.close()


async def test_close_waits_for_what_was_accepted_and_no_longer(server: FirestoreServer) -> None:
    store = await opened(Store(read_timeout=Seconds(10), write_timeout=Seconds(0.4)))
    server.faults.add("Commit", faults.hang(), times=None)
    hung = asyncio.create_task(store.commit([Put(key("a"), {})]))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreTimeout):
        await hung


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancelled_call_leaves_nothing_behind(
    server: FirestoreServer, store: FirestoreStore, operation: str
) -> None:
    rpc, call = OPERATIONS[operation]
    rule = server.faults.add(rpc, faults.hang(), times=None)
    task = asyncio.ensure_future(call(store))
    await eventually(lambda: rule.hits == 1, "the call arrived")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: bool(server.counts.attempts[-1].outcome), "the call ended at the server")
    assert store._running == 0


async def test_filters_that_firestore_takes_one_of_are_checked_here(
    server: FirestoreServer, store: FirestoreStore
) -> None:
    await fill(
        store,
        {f"{n:03}": {"kind": n % 7, "state": n % 5, "rank": n, "tags": [n % 2, 10 + n % 3]} for n in range(400)},
    )
    wanted = [n for n in range(400) if n % 2 == 1 and n % 3 == 2 and n % 7 != 4]
    filters = (
        Filter("tags", Op.CONTAINS, 1),
        Filter("tags", Op.CONTAINS, 12),
        Filter("kind", Op.NE, 4),
    )
    query = things(*filters, order=(Order("rank"),), limit=20)
    assert await ids(store, query) == [f"{n:03}" for n in wanted[:20]]
    seen: list[Document] = []
    while page := await store.query(
        replace(query, after=None if not seen else (seen[-1].fields["rank"], seen[-1].key.id))
    ):
        seen += page
    assert [document.fields["rank"] for document in seen] == wanted
    assert await store.count(things(*filters)) == len(wanted)
    many = (Filter("kind", Op.IN, list(range(6))), Filter("state", Op.IN, list(range(1, 9))))
    expected = [n for n in range(400) if n % 7 < 6 and n % 5 > 0]
    assert await store.count(things(*many)) == len(expected)
    assert await ids(store, things(*many, limit=500)) == [f"{n:03}" for n in expected]
