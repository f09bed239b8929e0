"""The relay on a file: its loop, what one tenant, key or consumer can do to others, and the way back of what was parked."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chassis.clock import FakeClock, SystemClock
from chassis.config import Seconds, Store
from chassis.errors import ApiError, Code
from chassis.outbox import delivery
from chassis.outbox.parked import RetryFile
from chassis.outbox.port import EVENT, Effect
from chassis.outbox.records import SCHEMA, all_parked, all_pending
from chassis.store.port import DocumentStore, Query, StoreUnavailable
from chassis.store.sqlite import SqliteStore
from tests.support.deliveries import POISON, REFUSED, Consumer, Office, effect
from tests.support.eventually import eventually

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
EXHAUSTED = ApiError(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Too much.", retry_after=3.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    store = await SqliteStore.open(tmp_path / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
    yield store
    await store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def running(office: Office) -> AsyncIterator[None]:
    task = asyncio.create_task(office.relay.run())
    yield
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def fill(office: Office, effects: Sequence[Effect]) -> None:
    for first in range(0, len(effects), 500):
        await office.commit(*effects[first : first + 500])


class Selective:
    """A consumer that answers by tenant or id: with an error, or by taking it."""

    def __init__(self, **answers: BaseException) -> None:
        self.inner = Consumer()
        self.answers = answers
        self.calls = 0

    async def __call__(self, effects: Sequence[Effect]) -> list[BaseException | None]:
        self.calls += 1
        failure = self.answers.get(effects[0].tenant)
        if failure is not None:
            raise failure
        return await self.inner(effects)


async def test_what_is_committed_is_delivered_at_once(store: DocumentStore, clock: FakeClock) -> None:
    consumer = Consumer()
    office = Office(store, consumer, clock)
    async with running(office):
        for number in range(3):
            await office.commit(effect(str(number)))
            await eventually(lambda wanted=number + 1: len(consumer.took) == wanted, "delivery", within=30)  # type: ignore[misc]


async def test_what_nobody_was_told_of_is_found_at_the_next_look(store: DocumentStore, clock: FakeClock) -> None:
    consumer = Consumer()
    office = Office(store, consumer, clock)
    dead = Office(store, consumer, clock, by="dead")
    await dead.commit(effect("left"))
    async with running(office):
        await eventually(lambda: clock.sleepers > 0, "the relay's pause", within=30)
        for _ in range(4):
            await clock.advance(1)
            await eventually(lambda: clock.sleepers > 0, "the relay's pause", within=30)
        await eventually(lambda: consumer.ids() == ["left"], "delivery", within=30)


async def test_a_store_that_is_away_is_waited_for(
    store: DocumentStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer()
    office = Office(store, consumer, clock)
    query, asked = store.query, 0

    async def away(asks: Query) -> Any:
        nonlocal asked
        asked += 1
        if asked <= 5:
            raise StoreUnavailable
        return await query(asks)

    monkeypatch.setattr(store, "query", away)
    await office.commit(effect("a"))
    async with running(office):
        while asked <= 5:
            await eventually(lambda: clock.sleepers > 0, "the relay's pause", within=30)
            await clock.advance(16)
        await eventually(lambda: consumer.ids() == ["a"], "delivery", within=30)


async def test_a_tenant_that_is_refused_more_holds_up_no_other_and_is_not_parked(
    store: DocumentStore, clock: FakeClock
) -> None:
    consumer = Selective(greedy=EXHAUSTED)
    office = Office(store, consumer, clock, batch=20)
    await fill(office, [effect(f"g{n}", f"k{n % 50}", "greedy") for n in range(400)])
    await fill(office, [effect(f"m{n}", f"k{n}", "modest") for n in range(10)])
    await office.relay.walk()
    assert len(consumer.inner.took) == 10
    calls = consumer.calls
    await office.relay.walk()
    assert consumer.calls == calls, "not before the time that it asked for"
    for _ in range(10):
        await clock.advance(20)
        await office.relay.walk()
    assert await store.count(all_parked()) == 0
    assert office.value("bas_outbox_pending") == 400
    del consumer.answers["greedy"]
    await clock.advance(20)
    await office.relay.walk()
    assert await store.count(all_pending()) == 0


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED])
async def test_what_is_wrong_with_the_caller_parks_nothing(store: DocumentStore, clock: FakeClock, code: Code) -> None:
    consumer = Selective(acme=ApiError(code, "X", "Not you."))
    office = Office(store, consumer, clock)
    await office.commit(effect("a"))
    for _ in range(10):
        await office.relay.walk()
        await clock.advance(20)
    assert await store.count(all_parked()) == 0
    del consumer.answers["acme"]
    await office.relay.walk()
    assert consumer.inner.ids() == ["a"]


async def test_a_consumer_that_hangs_is_left_in_time(
    store: DocumentStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WITHIN", 0.05)
    consumer = Consumer()

    async def deliver(effects: Sequence[Effect]) -> list[BaseException | None]:
        if effects[0].tenant == "slow":
            await asyncio.Event().wait()
        return await consumer(effects)

    office = Office(store, deliver, clock)
    await office.commit(effect("s", tenant="slow"), effect("f", tenant="fast"))
    async with asyncio.timeout(30):
        await office.relay.walk()
    assert consumer.ids() == ["f"]
    assert await store.count(all_pending()) == 1


@pytest.mark.parametrize("answers", [[], [None, None, None], ValueError("a bug")])
async def test_a_consumer_with_a_bug_is_a_refusal(store: DocumentStore, clock: FakeClock, answers: Any) -> None:
    async def deliver(effects: Sequence[Effect]) -> Any:
        if isinstance(answers, Exception):
            raise answers
        return answers

    office = Office(store, deliver, clock, attempts=2)
    await office.commit(effect("a"), effect("b"))
    for _ in range(6):
        await office.relay.walk()
        await clock.advance(20)
    assert await store.count(all_parked()) == 2


async def test_a_backlog_of_an_outage_is_worked_off_in_order(store: DocumentStore, clock: FakeClock) -> None:
    consumer = Consumer(away=ApiError(Code.UNAVAILABLE, "AWAY", "away"))
    office = Office(store, consumer, clock, batch=200)
    made = [effect(f"{(n * 7919) % 5000:04}", f"k{n % 100 if n % 3 else 0}", f"t{n % 3}") for n in range(5000)]
    await fill(office, made)
    await office.relay.walk()
    assert consumer.took == []
    assert sum(consumer.deliveries) <= 200, "one page tells that it is away"
    consumer.away = None
    await clock.advance(20)
    await office.relay.walk()
    assert len(consumer.took) == len(consumer.came) == 5000
    for tenant in ("t0", "t1", "t2"):
        for key in {each.key for each in made if each.tenant == tenant}:
            assert consumer.ids(key, tenant) == [e.id for e in made if (e.key, e.tenant) == (key, tenant)]
    assert max(consumer.deliveries) <= 500
    assert await store.count(all_pending()) == 0


async def test_records_of_a_kind_that_nobody_delivers_any_more_stay_and_hold_up_nothing(
    store: DocumentStore, clock: FakeClock
) -> None:
    consumer = Consumer()
    before = Office(store, {"early": consumer, EVENT: consumer, "late": consumer}, clock)
    for kind in ("early", EVENT, "late"):
        await before.commit(*(effect(f"{kind}{n}", kind=kind) for n in range(9)))
    office = Office(store, consumer, clock, batch=4)
    await office.relay.walk()
    assert consumer.ids() == [f"{EVENT}{n}" for n in range(9)]
    assert await store.count(all_pending()) == 18


async def test_what_was_parked_is_delivered_when_somebody_asks_for_it(
    store: DocumentStore, clock: FakeClock, tmp_path: Path
) -> None:
    asked = RetryFile(tmp_path / "store.db")
    consumer = Selective(acme=REFUSED)
    office = Office(store, consumer, clock, attempts=1, retries=RetryFile(tmp_path / "store.db", store))
    await office.commit(effect("a"))
    await office.commit(effect("b"))
    await office.relay.walk()
    await office.relay.walk()
    assert await store.count(all_parked()) == 2
    del consumer.answers["acme"]
    await office.relay.walk()
    assert consumer.inner.took == [], "nobody asked for it"
    await asyncio.to_thread(asked.ask, ["b", "a", "never heard of"])
    with pytest.raises(FileExistsError):
        await asyncio.to_thread(asked.ask, ["b"])
    async with running(office):
        await eventually(lambda: not asked.asked, "the request to be taken up", within=30)
        await eventually(lambda: consumer.inner.ids() == ["a", "b"], "delivery in the old order", within=30)
    assert await store.count(all_parked()) == 0


async def test_a_request_that_cannot_be_read_is_dropped(store: DocumentStore, tmp_path: Path) -> None:
    (tmp_path / "store.db.retry").write_text("{", encoding="utf-8")
    file = RetryFile(tmp_path / "store.db", store)
    assert await file() == 0
    assert not file.asked


async def test_one_that_is_refused_again_is_parked_again(
    store: DocumentStore, clock: FakeClock, tmp_path: Path
) -> None:
    consumer = Consumer()
    office = Office(store, consumer, clock, attempts=1, retries=RetryFile(tmp_path / "store.db", store))
    await office.commit(effect("bad", payload=POISON))
    await office.relay.walk()
    assert await store.count(all_parked()) == 1
    RetryFile(tmp_path / "store.db").ask(["bad"])
    assert await RetryFile(tmp_path / "store.db", store)() == 1
    assert await store.count(all_parked()) == 0
    await office.relay.walk()
    assert await store.count(all_parked()) == 1
