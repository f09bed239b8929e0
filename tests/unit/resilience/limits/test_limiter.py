import asyncio
import math
import tracemalloc

import pytest

from chassis.clock import FakeClock
from chassis.config import Limits
from chassis.errors import Code
from chassis.resilience.limits.gcra import key
from chassis.resilience.limits.limiter import PAUSE, TTL
from chassis.resilience.limits.policies import Policies, Policy
from tests.support.buckets import Buckets, lost, settle
from tests.unit.resilience.limits.rig import Rig

SMALL = Limits(rate=5.0, burst=10)
USUAL = Limits(rate=500.0, burst=1000)


@pytest.mark.parametrize("limits", [SMALL, USUAL, Limits(rate=0.1, burst=1), Limits(rate=1000.0, burst=3)])
async def test_a_burst_is_admitted_and_nothing_more(limits: Limits) -> None:
    rig = Rig(limits)
    assert await rig.taken(limits.burst + 50) == limits.burst
    await rig.clock.advance(10 / limits.rate + 0.001)
    assert await rig.taken(50) == min(10, limits.burst)
    await rig.clock.advance(10 * limits.burst / limits.rate)
    assert await rig.taken(limits.burst + 50) == limits.burst


async def test_a_refusal_says_when_to_come_back_and_whose_quota_it_is() -> None:
    rig = Rig(SMALL)
    await rig.taken(10)
    refusal = await rig.take()
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refusal.retry_after == pytest.approx(0.2, abs=0.001)
    assert refusal.pushback == -1.0
    assert dict(refusal.metadata) == {"quota": "tenant", "rate": "5", "burst": "10", "version": "v2"}
    assert rig.sample("bas_limits_refused_total") == 1
    await rig.clock.advance(refusal.retry_after or 0.0)
    assert await rig.take() is None


async def test_tenants_and_versions_have_buckets_of_their_own() -> None:
    rig = Rig(SMALL)
    assert await rig.taken(20) == 10
    assert await rig.taken(20, "other") == 10
    assert await rig.taken(20, version="v3") == 10


async def test_what_comes_at_once_waits_for_one_request_together() -> None:
    rig = Rig(Limits(rate=100.0, burst=100))
    results = await asyncio.gather(*(rig.take() for _ in range(130)))
    assert results.count(None) == 100
    assert len(rig.buckets.requests) <= 3


async def test_a_steady_caller_seldom_waits() -> None:
    rig = Rig(USUAL)
    waited = 0
    for _ in range(2000):
        pending = rig.limiter.of("v2")("acme", rig.clock.monotonic())
        waited += pending is not None
        if pending is not None:
            await pending
        await rig.clock.advance(1 / 400)
    assert waited <= 1
    assert len(rig.buckets.requests) < 2000 / 15


async def test_who_is_refused_does_not_ask_again_at_once() -> None:
    rig = Rig(USUAL)
    assert await rig.taken(1000) == 1000
    before = len(rig.buckets.requests)
    for _ in range(100):
        assert await rig.taken(50) <= 10
        await rig.clock.advance(0.01)
    assert len(rig.buckets.requests) - before <= 60


async def test_what_is_not_used_is_given_back() -> None:
    rig = Rig(Limits(rate=100.0, burst=100))
    assert await rig.taken(64) == 64
    await settle()
    held = rig.limiter._versions["v2"]._young["acme"].tokens
    assert held > 0
    await rig.clock.advance(TTL)
    assert await rig.take() is None
    assert rig.buckets.requests[-1][4] == held


async def test_who_asks_little_is_granted_little() -> None:
    rig = Rig(USUAL)
    for _ in range(5):
        assert await rig.take() is None
        await rig.clock.advance(TTL)
    assert rig.buckets.requests[-1][3] <= 2


async def test_a_caller_that_leaves_takes_nothing() -> None:
    rig = Rig(Limits(rate=1.0, burst=1))
    held = asyncio.Event()
    rig.buckets.asked = lambda: _wait(held)
    leaving = asyncio.create_task(rig.take())
    staying = asyncio.create_task(rig.take())
    await settle()
    leaving.cancel()
    await settle()
    held.set()
    assert await staying is None
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_while_the_cache_is_away_a_share_is_admitted_without_waiting() -> None:
    rig = Rig(Limits(rate=100.0, burst=100, replicas=4))
    rig.buckets.away = True
    assert await rig.taken(100) == 25
    assert rig.sample("bas_limits_away") == 1
    assert rig.sample("bas_limits_alone_total") == 25
    before = len(rig.buckets.requests)
    admitted = 0
    for _ in range(1000):
        pending_free = await rig.take() is None
        admitted += pending_free
        await rig.clock.advance(0.01)
    assert admitted == pytest.approx(250, abs=2)
    assert len(rig.buckets.requests) - before <= 10 / PAUSE + 1
    rig.buckets.away = False
    await rig.clock.advance(PAUSE)
    await rig.take()
    await settle()
    assert rig.sample("bas_limits_away") == 0


async def test_a_first_call_while_the_cache_hangs_is_decided_as_soon_as_that_is_known() -> None:
    rig = Rig(SMALL)
    rig.buckets.asked = lost
    assert await rig.take() is None
    assert await rig.taken(20) == 9


async def test_what_was_admitted_alone_counts_when_the_cache_is_back() -> None:
    rig = Rig(SMALL)
    rig.buckets.away = True
    assert await rig.taken(20) == 10
    rig.buckets.away = False
    await rig.clock.advance(PAUSE)
    assert await rig.taken(20) <= 1 + 10 * PAUSE


@pytest.mark.parametrize("forgotten", [False, True], ids=["known", "restarted empty"])
async def test_a_cache_that_comes_and_goes_every_second_gives_nothing_away(*, forgotten: bool) -> None:
    rig = Rig(Limits(rate=50.0, burst=50))
    admitted = 0
    for second in range(60):
        rig.buckets.away = second % 2 == 1
        if forgotten:
            rig.buckets.full_at.clear()
        for _ in range(20):
            admitted += await rig.taken(10)
            await rig.clock.advance(0.05)
    assert 50 * 60 * 0.9 <= admitted <= 50 + 50 * 60


async def test_a_lost_answer_is_not_asked_for_again() -> None:
    rig = Rig(Limits(rate=100.0, burst=100))
    rig.buckets.answering = lost
    assert await rig.take() is None
    assert len(rig.buckets.requests) == 1


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_a_step_of_the_wall_clock_changes_nothing(step: float) -> None:
    rig = Rig(SMALL)
    assert await rig.taken(20) == 10
    rig.clock.step_wall(step)
    assert await rig.taken(20) == 0


@pytest.mark.parametrize(("step", "at_most"), [(-3600e6, 1.0), (3600e6, 11.0)])
async def test_a_step_of_the_caches_clock_costs_at_most_one_bucket(step: float, at_most: float) -> None:
    rig = Rig(SMALL)
    assert await rig.taken(20) == 10
    rig.buckets.full_at[key("acme", "v2")] -= step
    await rig.clock.advance(0.2)
    assert await rig.taken(30) <= at_most
    await rig.clock.advance(10.0)
    assert await rig.taken(30) == 10


async def test_a_changed_policy_holds_from_the_next_request() -> None:
    rig = Rig(SMALL)
    assert await rig.taken(3) == 3
    assert await rig.taken(3, "other") == 3
    default = Policy(5.0, 10)
    rig.limiter.use(Policies(default, {("acme", ""): Policy(1000.0, 2000)}))
    # What is used up stays used up: the time until the bucket is full does not change.
    assert await rig.taken(3000) == 2000 - 3 / 5.0 * 1000
    rig.limiter.use(Policies(default, {("acme", "v2"): Policy(0.1, 1)}))
    assert await rig.taken(10) == 0
    assert await rig.taken(20, "other") == 7


async def test_a_hundred_thousand_tenants_take_bounded_memory() -> None:
    rig = Rig(Limits(tenants=10_000))
    rig.buckets.away = True
    await rig.take("first")
    take, now = rig.limiter.of("v2"), rig.clock.monotonic()
    for number in range(100_000):
        take(f"tenant-{number}", now)
    assert 5_000 <= len(rig.limiter) <= 10_000
    assert "tenant-99999" in rig.limiter._versions["v2"]._young


async def test_ten_thousand_tenants_take_less_than_five_megabytes() -> None:
    clock = FakeClock()
    rig = Rig(Limits(tenants=10_000), clock, Forgetful(clock))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2_500):
            await rig.take(f"tenant-{number}")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(rig.limiter) == 2_500
    assert taken * 4 < 5e6


async def test_who_waits_when_it_closes_is_told() -> None:
    rig = Rig(SMALL)
    rig.buckets.asked = lambda: _wait(asyncio.Event())
    waiting = asyncio.create_task(rig.take())
    await settle()
    await rig.limiter.close()
    assert await waiting is None


class Forgetful(Buckets):
    """Grants everything, and keeps nothing that would count as the limiter's memory."""

    async def run(self, _script: object, _keys: object, args: object = ()) -> object:  # type: ignore[override]
        return [int(args[3]), 0, math.inf]  # type: ignore[index]


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
