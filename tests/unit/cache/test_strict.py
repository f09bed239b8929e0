"""The strict read-through over interleavings: from its commit on, a change is seen by every read that begins, whether
or not the writer lives to lift its fence; a server that restarted between fence and commit needs the lift."""

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from chassis.cache.lease import Lives
from chassis.cache.port import Cache, CacheUnavailable, Load, Loaded
from chassis.cache.strict import Fence, StrictReadThrough
from chassis.clock import FakeClock
from chassis.telemetry.metrics import Metrics
from tests.support.history import Write
from tests.support.memory_cache import MemoryCache
from tests.unit.cache.test_coherence import KEY, LIVES, Interleavings

HOLD = 30.0


class Strict:
    def __init__(self, cache: MemoryCache, random: Random) -> None:
        self.reads = StrictReadThrough(
            cache, lambda: None if cache.away else cache.epoch, "ses", LIVES, Metrics(), random
        )

    async def get(self, key: str, load: Load) -> bytes | None:
        return await self.reads.get(key, load)

    async def invalidate(self, key: str) -> bool:
        raise NotImplementedError

    async def close(self) -> None:
        await self.reads.close()


class StrictInterleavings(Interleavings):
    def subject(self, cache: Cache, random: Random) -> Strict:
        assert isinstance(cache, MemoryCache)
        return Strict(cache, random)

    async def fence(self, reads: StrictReadThrough) -> Fence:
        return await reads.fence(KEY, hold=HOLD)

    async def _write(self, replica: object) -> None:
        assert isinstance(replica, Strict)
        began = self.clock.monotonic()
        try:
            fence = await self.fence(replica.reads)
        except CacheUnavailable:
            return
        await self.gates()
        # The commit's own time-out is shorter than the hold.
        if self.clock.monotonic() < began + HOLD:
            self.version += 1
            write = Write(self.version, float(next(self.ticks)))
            self.history.writes.append(write)
            if self.cache.epoch == fence.epoch:
                write.acknowledged = write.committed
            await self.gates()
            lifted = await replica.reads.lift(fence)
            if lifted and write.acknowledged is None:
                write.acknowledged = float(next(self.ticks))
        else:
            await replica.reads.lift(fence)


class WithoutFence(StrictInterleavings):
    """A seeded bug: the fence is not set."""

    async def fence(self, reads: StrictReadThrough) -> Fence:
        return Fence((KEY,), self.cache.epoch or "", b"0" * 24)


_SEARCH = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_no_interleaving_breaks_the_promise() -> None:
    run_state_machine_as_test(StrictInterleavings, settings=_SEARCH)


def test_the_check_catches_a_missing_fence() -> None:
    with pytest.raises(AssertionError, match="stale"):
        run_state_machine_as_test(WithoutFence, settings=settings(_SEARCH, phases=[Phase.generate], max_examples=2000))


async def test_a_fence_is_lifted_by_its_own_mark_only() -> None:
    cache = MemoryCache(FakeClock())
    sessions = StrictReadThrough(cache, lambda: cache.epoch, "ses", Lives(60, 3, 10, 0.1), Metrics(), Random(1))
    loads = 0

    async def load() -> Loaded:
        nonlocal loads
        loads += 1
        return Loaded(b"s", "1")

    first = await sessions.fence(KEY, hold=HOLD)
    second = await sessions.fence(KEY, hold=HOLD)
    assert await sessions.lift(first)
    assert [await sessions.get(KEY, load) for _ in range(2)] == [b"s", b"s"]
    assert loads == 2
    assert await sessions.lift(second)
    assert [await sessions.get(KEY, load) for _ in range(2)] == [b"s", b"s"]
    assert loads == 3


async def test_a_fence_ends_by_its_hold_and_nothing_is_fenced_without_a_cache() -> None:
    clock = FakeClock()
    cache = MemoryCache(clock)
    sessions = StrictReadThrough(cache, lambda: cache.epoch, "ses", Lives(60, 3, 10, 0.1), Metrics(), Random(1))

    async def load() -> Loaded:
        return Loaded(b"s", "1")

    await sessions.fence(KEY, hold=HOLD)
    await sessions.get(KEY, load)
    assert cache.held() == []
    await clock.advance(HOLD + 1)
    await sessions.get(KEY, load)
    assert cache.held() == [f"ses:{{{KEY}}}:run-1"]
    cache.away = True
    with pytest.raises(CacheUnavailable):
        await sessions.fence(KEY, hold=HOLD)
    assert await sessions.get(KEY, load) == b"s"


async def test_forgetting_refuses_what_is_being_loaded() -> None:
    cache = MemoryCache(FakeClock())
    sessions = StrictReadThrough(cache, lambda: cache.epoch, "ses", Lives(60, 3, 10, 0.1), Metrics(), Random(1))
    found = [b"old"]

    async def load() -> Loaded:
        now = found[0]
        if now == b"old":
            found[0] = b"new"
            await sessions.forget(KEY)
        return Loaded(now, "1")

    assert await sessions.get(KEY, load) == b"old"
    assert await sessions.get(KEY, load) == b"new"
    found[0] = b"newer"
    assert await sessions.get(KEY, load) == b"new"
    await sessions.forget(KEY)
    assert await sessions.get(KEY, load) == b"newer"
    cache.away = True
    with pytest.raises(CacheUnavailable):
        await sessions.forget(KEY)


async def test_the_first_operation_reaches_a_server_that_was_never_asked() -> None:
    cache = MemoryCache(FakeClock())
    epochs = iter((None, "run-1"))
    sessions = StrictReadThrough(
        cache, lambda: next(epochs, "run-1"), "ses", Lives(60, 3, 10, 0.1), Metrics(), Random(1)
    )
    assert (await sessions.fence(KEY, hold=HOLD)).epoch == "run-1"


async def test_a_lift_that_met_another_run_is_none() -> None:
    """The server was away when the lift began, and back, as another run with an entry of its own, before it was sent."""
    cache = MemoryCache(FakeClock())
    unnoticed: list[str | None] = []
    sessions = StrictReadThrough(
        cache,
        lambda: unnoticed.pop() if unnoticed else cache.epoch,
        "ses",
        Lives(60, 3, 10, 0.1),
        Metrics(),
        Random(1),
    )
    found = b"live"

    async def load() -> Loaded:
        return Loaded(found, "1")

    fence = await sessions.fence(KEY, hold=HOLD)
    cache.restart("run-2")
    assert await sessions.get(KEY, load) == b"live"
    found = b"revoked"
    unnoticed.append(None)
    assert not await sessions.lift(fence)
    assert await sessions.get(KEY, load) == b"live"
    assert await sessions.lift(fence)
    assert await sessions.get(KEY, load) == b"revoked"
