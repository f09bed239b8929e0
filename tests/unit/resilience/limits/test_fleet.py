"""The bound, whatever the order in which several processes ask and are answered: no more than the burst and what the rate
brings, and within any time no more than that and what was granted before it began."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chassis.cache.port import CacheUnavailable
from chassis.clock import FakeClock
from chassis.config import Limits
from chassis.resilience.limits.bucket import Bucket
from chassis.resilience.limits.limiter import limited
from tests.support.buckets import Buckets, settle
from tests.unit.resilience.limits.rig import Rig

LIMITS = Limits(rate=100.0, burst=40)
AHEAD = 10
"""Tokens that one process holds at most: a tenth of a second's."""


@dataclass
class Fleet:
    """`admitted` are the times. Requests to the buckets, and their answers, are held back until they are let go on, unless
    it is a `prompt` one."""

    processes: int
    prompt: bool = False
    limits: Limits = LIMITS
    clock: FakeClock = field(default_factory=FakeClock)
    admitted: list[float] = field(default_factory=list)
    held: list[asyncio.Future[bool]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        full_at: dict[str, float] = {}
        self.begun = self.clock.monotonic()
        self.rigs = []
        for _ in range(self.processes):
            buckets = Buckets(self.clock, full_at)
            if not self.prompt:
                buckets.asked = buckets.answering = self._hold
            self.rigs.append(Rig(self.limits, self.clock, buckets))

    async def _hold(self) -> None:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.held.append(future)
        if not await future:
            raise CacheUnavailable

    def take(self, process: int, count: int) -> None:
        self.tasks += [asyncio.create_task(self._take(process)) for _ in range(count)]

    async def _take(self, process: int) -> None:
        if await self.rigs[process % self.processes].take() is None:
            self.admitted.append(self.clock.monotonic())

    def let_go(self, which: int, *, well: bool) -> None:
        if self.held:
            future = self.held.pop(which % len(self.held))
            if not future.done():
                future.set_result(well)

    async def end(self) -> None:
        while self.held or not all(task.done() for task in self.tasks):
            self.let_go(0, well=True)
            await settle()
        await asyncio.gather(*self.tasks)
        for rig in self.rigs:
            await rig.limiter.close()

    def check(self, slack: float) -> None:
        """`slack` is for times that do not begin at the beginning."""
        times, limits = sorted(self.admitted), self.limits
        for first in range(len(times) if slack < math.inf else 1):
            begin, allowed = (times[first], limits.burst + slack) if first else (self.begun, limits.burst)
            for last in range(first, len(times)):
                count, passed = last - first + 1, times[last] - begin
                assert count <= allowed + limits.rate * passed + 1e-6, (first, last, passed)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 15)),
        st.tuples(st.just("go on"), st.integers(0, 9), st.just(1)),
        st.tuples(st.just("time"), st.sampled_from([1, 5, 20, 60, 300, 1100]), st.just(0)),
    ),
    max_size=40,
)
WITH_LOSSES = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.just(0), st.integers(1, 15)),
        st.tuples(st.just("go on"), st.integers(0, 3), st.integers(0, 1)),
        st.tuples(st.just("forget"), st.just(0), st.just(0)),
        st.tuples(st.just("time"), st.sampled_from([1, 5, 20, 60, 300, 1100]), st.just(0)),
    ),
    max_size=40,
)


def play(fleet: Callable[[], Fleet], steps: list[Step], slack: float = math.inf) -> None:
    async def run() -> None:
        playing = fleet()
        for kind, which, how in steps:
            if kind == "take":
                playing.take(which, how)
            elif kind == "go on":
                playing.let_go(which, well=bool(how))
            elif kind == "forget":  # a cache that is started anew
                playing.rigs[0].buckets.full_at.clear()
            elif kind == "away":
                playing.rigs[0].buckets.away = bool(how)
            else:
                await playing.clock.advance(which / 1000)
            await settle()
        await playing.end()
        playing.check(slack)

    with capture_logs():
        asyncio.run(run())


@settings(max_examples=35, deadline=None)
@given(STEPS)
def test_a_fleet_never_admits_more_than_the_limit(steps: list[Step]) -> None:
    play(lambda: Fleet(3), steps)


@settings(max_examples=35, deadline=None)
@given(STEPS)
def test_at_no_time_does_it_admit_more_than_that_and_what_it_held(steps: list[Step]) -> None:
    play(lambda: Fleet(3, prompt=True), steps, 3 * AHEAD)


@settings(max_examples=35, deadline=None)
@given(WITH_LOSSES)
def test_one_process_holds_the_limit_whatever_the_cache_does(steps: list[Step]) -> None:
    play(lambda: Fleet(1), steps)


def _refunds_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    settle_bucket = Bucket.settle

    def broken(self: Bucket, share: int, now: float) -> None:
        before = self.spare
        settle_bucket(self, share, now)
        self.spare += self.spare - before

    monkeypatch.setattr(Bucket, "settle", broken)


def _refunds_and_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Bucket, share: int, now: float) -> None:
        self.spare += self.tokens

    monkeypatch.setattr(Bucket, "settle", broken)


def _forgets_what_it_admitted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bucket, "lacking", lambda _self, _now: 0.0)


def _admits_on_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Bucket, share: int, now: float) -> float:
        return 0.0

    monkeypatch.setattr(Bucket, "take_alone", broken)


PARTLY_USED: list[Step] = [("take", 0, 450), *[("time", 1100, 0), ("take", 0, 1), ("take", 0, 6)] * 3, ("take", 0, 450)]
OUTAGE: list[Step] = [
    ("away", 0, 1), ("take", 0, 450), ("away", 0, 0), ("forget", 0, 0), ("time", 300, 0), *[("take", 0, 450)] * 3,
]  # fmt: skip


@pytest.mark.parametrize(
    ("bug", "steps"),
    [
        (_refunds_twice, PARTLY_USED),
        (_refunds_and_keeps, PARTLY_USED),
        (_forgets_what_it_admitted_alone, OUTAGE),
        (_admits_on_credit, OUTAGE),
    ],
)
def test_the_check_finds_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None], steps: list[Step]
) -> None:
    def fleet() -> Fleet:
        return Fleet(1, prompt=True, limits=Limits(rate=100.0, burst=400))

    play(fleet, steps, AHEAD)
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        play(fleet, steps, AHEAD)


def test_a_refusal_is_no_message_for_others() -> None:
    error = limited(Rig(LIMITS).limiter.policies.of("acme", "v2"), "v2", 1.0)
    assert "acme" not in error.message
