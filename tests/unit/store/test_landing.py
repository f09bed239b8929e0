"""Commits seen to their end: invalidated after they landed, once more when nobody knows, never when refused."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from chassis.clock import FakeClock
from chassis.errors import ApiError
from chassis.store.landing import AGAIN, MOST_AGAIN, Landings
from chassis.store.port import (
    Committed,
    Create,
    DocumentExists,
    Key,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    Write,
)

WRITES = [Create(Key("t", "c", "a"), {})]


class Store:
    """Of a document store, the commit alone; `ends` is what it comes to, when `disk` lets it."""

    def __init__(self, ends: Exception | None = None) -> None:
        self.ends = ends
        self.disk = asyncio.Event()
        self.happened: list[str] = []

    async def commit(self, writes: Sequence[Write]) -> Committed:
        await self.disk.wait()
        self.happened.append("commit")
        if self.ends is not None:
            raise self.ends
        return Committed(("1",) * len(writes), datetime(2026, 1, 1, tzinfo=UTC))

    async def invalidate(self) -> None:
        self.happened.append("invalidate")


async def landed(landings: Landings, store: Store) -> None:
    await landings.commit(store, WRITES, store.invalidate)  # type: ignore[arg-type]  # the commit is all it needs


@pytest.mark.parametrize("leaves", [False, True])
async def test_the_invalidation_follows_the_commit(*, leaves: bool) -> None:
    store, landings = Store(), Landings(FakeClock())
    running = asyncio.create_task(landed(landings, store))
    await asyncio.sleep(0)
    if leaves:
        running.cancel()
    store.disk.set()
    await asyncio.wait([running])
    await landings.close()
    assert running.cancelled() == leaves
    assert store.happened == ["commit", "invalidate"]


@pytest.mark.parametrize(
    ("failure", "times"),
    [(DocumentExists(WRITES[0].key), 0), (StoreFull(), 1), (StoreTimeout(), 2), (StoreUnavailable(), 2)],
    ids=lambda value: type(value).__name__,
)
async def test_what_may_have_been_applied_is_invalidated_now_and_later(failure: ApiError, times: int) -> None:
    clock = FakeClock()
    store, landings = Store(failure), Landings(clock)
    store.disk.set()
    with pytest.raises(type(failure)):
        await landed(landings, store)
    assert store.happened.count("invalidate") == min(times, 1)
    await clock.advance(AGAIN)
    assert store.happened.count("invalidate") == times
    await landings.close()


async def test_what_waits_to_be_repeated_is_bounded_and_ends_with_the_owner() -> None:
    store, landings = Store(StoreTimeout()), Landings(FakeClock())
    store.disk.set()
    await asyncio.gather(*(landed(landings, store) for _ in range(MOST_AGAIN + 5)), return_exceptions=True)

    def waiting() -> int:
        return sum(task.get_name() == "landing-again" for task in asyncio.all_tasks())

    assert waiting() == MOST_AGAIN
    await landings.close()
    assert waiting() == 0


async def test_a_commit_that_never_ends_does_not_hold_up_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.store.landing._CLOSE", 0.01)
    landings = Landings(FakeClock())
    running = asyncio.create_task(landed(landings, Store()))
    await asyncio.sleep(0)
    await landings.close()
    with pytest.raises(asyncio.CancelledError):
        await running
