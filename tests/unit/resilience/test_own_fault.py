"""A time-out that this process made itself, or that the caller asked for, is not held against anybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from chassis.cache.address import parse
from chassis.cache.client import CacheBreakerOpen, CacheClient
from chassis.cache.pipeline import Budget as Operation
from chassis.cache.pipeline import PipelinedConnection
from chassis.cache.port import CacheUnavailable
from chassis.clock import SystemClock
from chassis.config import Breaker as Budget
from chassis.config import Seconds, Store
from chassis.errors import not_found
from chassis.resilience.breaker import Breaker, State
from chassis.resilience.lag import LoopLag, never_late
from chassis.store.guarded import GuardedStore, StoreBreakerOpen
from chassis.store.port import (
    Create,
    DocumentExists,
    DocumentStore,
    Key,
    StoreCorrupt,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
)
from chassis.telemetry.metrics import Metrics
from tests.support.eventually import eventually

KEY = Key("acme", "things", "t1")
STORE = Store(read_timeout=Seconds(0.4), write_timeout=Seconds(0.4))
TWO = Budget(failures=2, window=Seconds(3600), half_open_after=Seconds(3600))


class OneAnswer:
    """A store whose every operation ends as it is told."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self._act = act

    async def get(self, key: Key) -> None:
        await self._act()

    async def commit(self, writes: object) -> None:
        await self._act()


def answering(act: Callable[[], Awaitable[None]]) -> DocumentStore:
    return cast(DocumentStore, OneAnswer(act))


def guarded(
    act: Callable[[], Awaitable[None]], late: Callable[[float], bool] = never_late
) -> tuple[Breaker, GuardedStore]:
    clock = SystemClock()
    breaker = Breaker("store", TWO, clock, refusal=StoreBreakerOpen)
    return breaker, GuardedStore(answering(act), breaker, STORE, clock, late)


def raising(failure: BaseException, after: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        await asyncio.sleep(after)
        raise failure

    return act


async def twice(store: GuardedStore, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        await store.get(KEY)
    with pytest.raises(failure):
        await store.commit([Create(KEY, {})])


async def test_a_store_that_is_away_or_late_opens_its_breaker() -> None:
    for failure, after in ((StoreUnavailable(), 0.0), (StoreTimeout(), 0.15)):
        breaker, store = guarded(raising(failure, after))
        await twice(store, type(failure))
        assert breaker.state is State.OPEN
        await twice(store, StoreBreakerOpen)


@pytest.mark.parametrize(
    "failure",
    [
        DocumentExists(KEY),
        StoreFull(),
        StoreCorrupt("x"),
        not_found("thing", "t1"),
        ValueError(),
        asyncio.CancelledError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_store_that_refuses_has_not_failed(failure: BaseException) -> None:
    breaker, store = guarded(raising(failure))
    for _ in range(3):
        await twice(store, type(failure))
    assert breaker.state is State.CLOSED


async def test_a_deadline_too_short_for_the_store_is_not_its_fault() -> None:
    clock = SystemClock()
    breaker = Breaker("store", TWO, clock, refusal=StoreBreakerOpen)
    store = GuardedStore(
        answering(raising(StoreTimeout())), breaker, Store(read_timeout=Seconds(60), write_timeout=Seconds(60)), clock
    )
    for _ in range(3):
        await twice(store, StoreTimeout)
    assert breaker.state is State.CLOSED


async def test_a_blocked_loop_is_not_the_stores_fault() -> None:
    async def blocked() -> None:
        await asyncio.sleep(0)
        time.sleep(0.25)  # noqa: ASYNC251 - this is the fault
        raise StoreTimeout

    lag = LoopLag()
    lag.start()
    try:
        breaker, store = guarded(blocked, lag.late_since)
        await twice(store, StoreTimeout)
        assert breaker.state is State.CLOSED
        ignorant, store = guarded(blocked)
        await twice(store, StoreTimeout)
        assert ignorant.state is State.OPEN, "who does not look at the loop blames the store"
    finally:
        lag.stop()


async def test_a_loop_that_goes_on_is_not_late() -> None:
    loop, lag = asyncio.get_running_loop(), LoopLag()
    assert not lag.late_since(0.0)
    lag.start()
    try:
        time.sleep(0.2)  # noqa: ASYNC251 - as above
        assert lag.late_since(loop.time()), "it is late now, though nothing has been sampled"
        await eventually(lambda: not lag.late_since(loop.time()), "the loop is in time")
        assert lag.late_since(loop.time() - 3600)
    finally:
        lag.stop()


class Silent(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if b"PING" in data:
            self.transport.write(b"+PONG\r\n$12\r\nrun_id:abc\r\n\r\n")


@asynccontextmanager
async def silent_cache(breaker: Breaker) -> AsyncIterator[CacheClient]:
    """A client of a server that greets, and then answers nothing."""
    served: list[Silent] = []

    def serve() -> Silent:
        served.append(Silent())
        return served[-1]

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    operation = Operation(operation=0.1, connect=10.0, stalled_after=60.0)
    hot = PipelinedConnection(parse(f"redis://127.0.0.1:{port}/0"), Metrics(), operation)
    client = CacheClient(hot, None, Metrics(), breaker)  # type: ignore[arg-type]  # nothing goes through redis-py
    try:
        with pytest.raises(CacheUnavailable):
            await client.delete("connects")
        await eventually(lambda: hot.up, "connected")
        yield client
    finally:
        await hot.close()
        for each in served:
            await asyncio.wait_for(each.lost.wait(), 30)
        server.close()
        await server.wait_closed()


async def silence(client: CacheClient) -> None:
    """64 commands at once, none of which is answered."""
    got = await asyncio.gather(*(client.get("k") for _ in range(64)), return_exceptions=True)
    assert all(isinstance(each, CacheUnavailable) for each in got)


def cache_breaker(failures: int) -> Breaker:
    budget = Budget(failures=failures, window=Seconds(3600), half_open_after=Seconds(3600))
    return Breaker("cache", budget, SystemClock(), refusal=CacheBreakerOpen)


async def test_one_silence_of_the_cache_is_one_failure_and_several_open_the_breaker() -> None:
    breaker = cache_breaker(4)
    async with silent_cache(breaker) as client:
        await silence(client)
        assert breaker.state is State.CLOSED

        async def opened() -> bool:  # a silence while the machine was busy counts for nothing
            await silence(client)
            return breaker.state is State.OPEN

        await eventually(opened, "the breaker opens")
        with pytest.raises(CacheBreakerOpen):
            await client.get("k")
        with pytest.raises(CacheUnavailable) as tried:
            await client.delete("k")
        assert not isinstance(tried.value, CacheBreakerOpen), "others would go on to read it: it is always tried"


async def test_a_blocked_loop_is_not_the_caches_fault() -> None:
    breaker = cache_breaker(2)
    async with silent_cache(breaker) as client:
        for _ in range(4):
            waiting = asyncio.ensure_future(silence(client))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.25)  # noqa: ASYNC251 - this is the fault
            await waiting
        assert breaker.state is State.CLOSED
