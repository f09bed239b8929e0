"""The fault wrappers do what they say, the same for the same seed, and nothing else."""

import asyncio
from pathlib import Path

import pytest

from chassis.cache.port import CacheUnavailable
from chassis.clock import FakeClock, SystemClock
from chassis.errors import ApiError, Code
from chassis.interceptors.client import Metadata
from chassis.store.port import Key, Put, Schema, StoreTimeout, StoreUnavailable
from chassis.store.sqlite import SqliteStore
from tests.faults.cache import FaultyCache
from tests.faults.call import FaultyCall
from tests.faults.fate import Befalls, Chances, Fate
from tests.faults.store import FaultyStore
from tests.support import patience
from tests.support.memory_cache import MemoryCache

KEY = Key("acme", "things", "t1")


def certain(befalls: Befalls) -> Fate:
    return Fate(1, Chances(**{befalls.value: 1.0}))


def test_the_same_seed_is_the_same_fate() -> None:
    chances = Chances(error=0.2, lost=0.2, hang=0.2, delay=0.2)
    one, two, other = (Fate(seed, chances) for seed in (7, 7, 8))
    drawn = [one.draw() for _ in range(200)]
    assert drawn == [two.draw() for _ in range(200)]
    assert drawn != [other.draw() for _ in range(200)]
    assert set(drawn) == set(Befalls)
    assert sum(one.count.values()) == 200


def test_shares_of_more_than_everything_are_refused() -> None:
    with pytest.raises(ValueError, match="more than all"):
        Chances(error=0.6, lost=0.6)


@pytest.mark.parametrize(
    ("befalls", "failures", "done"),
    [
        (Befalls.ERROR, (StoreUnavailable,), False),
        (Befalls.HANG, (StoreTimeout,), False),
        (Befalls.LOST, (StoreUnavailable, StoreTimeout), True),
        (Befalls.DELAY, (), True),
    ],
)
async def test_a_commit_is_done_or_not_whatever_is_answered(
    tmp_path: Path,
    befalls: Befalls,
    failures: tuple[type[Exception], ...],
    done: bool,  # noqa: FBT001 - a parameter
) -> None:
    inner = await SqliteStore.open(tmp_path / "s.db", Schema(), clock=SystemClock(), budget=patience.STORE)
    store = FaultyStore(inner, Fate(1), certain(befalls))
    if failures:
        with pytest.raises(failures):
            await store.commit([Put(KEY, {"n": 1})])
    else:
        await store.commit([Put(KEY, {"n": 1})])
    assert (await store.get(KEY) is not None) is done
    assert store.commits.count == {befalls: 1}
    await store.close()


async def test_a_hanging_operation_can_be_cancelled() -> None:
    cache = FaultyCache(MemoryCache(FakeClock()), Fate(1, Chances(hang=1.0, patience=3600)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get("k")


async def test_every_fault_of_the_cache_is_the_cache_being_away() -> None:
    cache = FaultyCache(MemoryCache(FakeClock()), certain(Befalls.LOST))
    with pytest.raises(CacheUnavailable):
        await cache.set("k", b"v", ttl=10)
    cache.fate.chances = Chances()
    assert await cache.get("k") == b"v"
    cache.fate.chances = Chances(error=1.0)
    with pytest.raises(CacheUnavailable):
        await cache.delete("k")


async def test_a_call_is_refused_as_by_a_lost_connection() -> None:
    async def inner(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - the port's
        return request

    call = FaultyCall(inner, certain(Befalls.ERROR))
    with pytest.raises(ApiError) as refusal:
        await call(b"x")
    assert refusal.value.code is Code.UNAVAILABLE
    call.fate.chances = Chances(hang=1.0, patience=0.0)
    with pytest.raises(ApiError) as refusal:
        await call(b"x")
    assert refusal.value.code is Code.DEADLINE_EXCEEDED
    call.fate.chances = Chances()
    assert await call(b"x") == b"x"
