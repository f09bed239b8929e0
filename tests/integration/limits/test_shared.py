"""The buckets in a real Valkey."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from chassis.cache.client import CacheClient, open_cache
from chassis.clock import FakeClock, SystemClock
from chassis.config import Limits
from chassis.errors import ApiError
from chassis.resilience.limits.gcra import GRANT, key
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.limits.policies import Policies, default_of
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.buckets import Buckets
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


@asynccontextmanager
async def client(url: str) -> AsyncIterator[CacheClient]:
    cache = open_cache(patience.cache_at(url), Metrics())
    try:
        yield cache
    finally:
        await cache.close()


@asynccontextmanager
async def process(url: str, limits: Limits, clock: FakeClock | None = None) -> AsyncIterator[Limiter]:
    """A limiter with a connection of its own; on the server's clock unless there is one to hold."""
    async with client(url) as cache:
        own = clock or SystemClock()
        policies = Policies(default_of(limits))
        limiter = Limiter(limits, policies, cache, own, Metrics(), server_clock=clock is None)
        try:
            yield limiter
        finally:
            await limiter.close()


async def take(limiter: Limiter, tenant: str = "acme") -> bool:
    try:
        pending = limiter.of("v2")(tenant, limiter.now())
        if pending is not None:
            await pending
    except ApiError as refusal:
        if refusal.reason != "RATE_LIMITED":
            raise
        return False
    return True


@pytest.mark.parametrize("seed", range(3))
async def test_the_twin_answers_like_the_script(valkey: Valkey, seed: int) -> None:
    random, clock = Random(seed), FakeClock()
    twin, now = Buckets(clock), 1_764_000_000_000_000
    gap = random.choice([1.0, 2000.0, 3000.03, 1e7])
    full = gap * random.choice([1, 7, 1000])
    async with client(valkey.url) as real:
        for _ in range(150):
            now += round(random.choice([0, 1, gap, full, 3 * full, -2 * full]) * random.random())
            wanted, back, force = random.randint(0, 60), random.choice([0, 0, 5]), random.randint(0, 1)
            args = (now, gap, full, wanted, back, random.choice([0, 0, full * random.random()]), force)
            if random.random() < 0.05:
                await real.delete("limits:{t/v2}")
                twin.full_at.clear()
            answer = await real.run(GRANT, ("limits:{t/v2}",), args)
            assert answer == twin.grant("limits:{t/v2}", *args)
            assert float(await real.get("limits:{t/v2}") or b"0") == twin.full_at["limits:{t/v2}"]


@pytest.mark.parametrize("seed", range(3))
async def test_a_fleet_admits_what_one_tenant_may_and_no_more(valkey: Valkey, seed: int) -> None:
    random, clock, limits = Random(seed), FakeClock(), Limits(rate=100.0, burst=200)
    begun, admitted = clock.monotonic(), 0
    async with (
        process(valkey.url, limits, clock) as one,
        process(valkey.url, limits, clock) as two,
        process(valkey.url, limits, clock) as three,
    ):
        for _ in range(60):
            for _ in range(random.randint(5, 60)):
                admitted += await take(random.choice([one, two, three]))
                passed = clock.monotonic() - begun
                assert admitted <= limits.burst + limits.rate * passed + 1e-6
            await clock.advance(random.choice([0.01, 0.1, 0.3]))
        for _ in range(5):  # what is there is to be had
            for each in (one, two, three):
                for _ in range(150):
                    admitted += await take(each)
            await clock.advance(0.02)
    assert admitted >= 0.9 * limits.rate * (clock.monotonic() - begun)


async def test_on_the_servers_clock_a_burst_is_admitted(valkey: Valkey) -> None:
    limits = Limits(rate=0.1, burst=10)
    async with process(valkey.url, limits) as one, process(valkey.url, limits) as two:
        begun = one.now()
        admitted = sum([await take(each) for each in [one, two] * 20])
        assert 10 <= admitted <= 10 + limits.rate * (one.now() - begun) + 1


async def test_no_bucket_is_kept_for_good(valkey: Valkey) -> None:
    limits = Limits(rate=10.0, burst=100)
    async with process(valkey.url, limits) as limiter:
        for number in range(200):
            assert await take(limiter, f"t{number}")
    kept = valkey.command("KEYS", "*")
    assert len(kept) == 200
    for each in kept:
        assert 0 < valkey.command("PTTL", each) <= 60_000 + 10_000
    assert key("t0", "v2").encode() in kept


async def test_a_server_that_dies_and_comes_back_empty_gives_nothing_away(own_valkey: Valkey) -> None:
    clock, limits = FakeClock(), Limits(rate=20.0, burst=100)
    begun, admitted = clock.monotonic(), 0
    async with process(own_valkey.url, limits, clock) as limiter:
        for round_ in range(4):
            for _ in range(10):
                for _ in range(20):
                    admitted += await take(limiter)
                await clock.advance(0.05)
                assert admitted <= limits.burst + limits.rate * (clock.monotonic() - begun)
            if round_ == 2:
                break
            await own_valkey.kill()
            for _ in range(10):
                for _ in range(20):
                    admitted += await take(limiter)
                await clock.advance(0.05)
            assert limiter.is_away()
            await own_valkey.restart()

            async def back() -> bool:
                nonlocal admitted
                admitted += await take(limiter)
                await clock.advance(0.3)
                return not limiter.is_away()

            await eventually(back, "shared again", every=0.05)
            assert admitted <= limits.burst + limits.rate * (clock.monotonic() - begun)
    assert admitted >= limits.rate * (clock.monotonic() - begun) * 0.5
