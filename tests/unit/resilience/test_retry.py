"""Retries: which, when, how many; the budget over any ten seconds."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.clock import FakeClock
from chassis.config import Retry, Seconds
from chassis.errors import ApiError, Code, deadline_exceeded, internal, not_found, unavailable
from chassis.resilience.breaker import BreakerOpen
from chassis.resilience.retry import WINDOW, Retries, RetryBudget

SETTINGS = Retry(attempts=2, share=1.0, floor=10, backoff=Seconds(1))


def away(pushback: float | None = None) -> ApiError:
    error = unavailable("UNAVAILABLE", "Away.")
    error.pushback = pushback
    return error


def exhausted(pushback: float | None) -> ApiError:
    error = ApiError(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Too many.")
    error.pushback = pushback
    return error


class Rig:
    """Attempts that end as they are told to, and when each of them began, after the first one's failure."""

    def __init__(self, outcomes: Sequence[ApiError | str], *, draw: float = 1.0, settings: Retry = SETTINGS) -> None:
        self.clock = FakeClock()
        self.counted: list[str] = []
        self.retries = Retries(settings, self.clock, lambda: draw, self.counted.append)
        self.outcomes = list(outcomes)
        self.at: list[float] = []
        self.numbers: list[int] = []

    async def attempt(self, number: int) -> str:
        self.at.append(self.clock.monotonic() - 1000)
        self.numbers.append(number)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    async def run(self, first: ApiError | None = None, seconds: float = 100) -> str:
        first = first or away()
        assert self.retries.worthwhile(first)
        task = asyncio.ensure_future(self.retries.again(first, self.attempt, self.clock.monotonic() + seconds))
        for _ in range(20):
            await self.clock.advance(0.5)
        assert task.done()
        return await task


async def test_the_waits_double_and_are_drawn_at_random() -> None:
    for draw, expected in ((1.0, [1, 3]), (0.5, [0.5, 1.5]), (0.0, [0, 0])):
        rig = Rig([away(), "well"], draw=draw)
        assert await rig.run() == "well"
        assert (rig.at, rig.numbers) == (expected, [1, 2])
        assert rig.counted == ["made", "made"]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_attempts_are_one_more_than_retries(attempts: int) -> None:
    rig = Rig([away()] * 5, settings=Retry(attempts=attempts, share=1.0, backoff=Seconds(0.001)))
    with pytest.raises(ApiError) as last:
        await rig.run()
    assert len(rig.at) == attempts
    assert last.value.pushback == -1, "the tier above is told not to repeat all this"


async def test_no_retries_where_none_are_wanted() -> None:
    rig = Rig([], settings=Retry(attempts=0))
    assert not rig.retries.worthwhile(away())


@pytest.mark.parametrize(
    "failure",
    [
        not_found("device", "d1"),
        internal(),
        deadline_exceeded(),
        BreakerOpen("devices", 0.1),
        away(-1.0),
        exhausted(None),
        exhausted(-1.0),
    ],
)
def test_what_is_not_repeated(failure: ApiError) -> None:
    assert not Rig([]).retries.worthwhile(failure)


async def test_another_failure_ends_it() -> None:
    rig = Rig([not_found("device", "d1"), "never"])
    with pytest.raises(ApiError, match="no device"):
        await rig.run()
    assert len(rig.at) == 1


async def test_pushback_overrides_the_wait() -> None:
    rig = Rig([exhausted(0.5), "well"])
    assert await rig.run(away(4.0)) == "well"
    assert rig.at == [4.0, 4.5]
    rig = Rig([away(-1.0), "never"])
    with pytest.raises(ApiError):
        await rig.run()
    assert rig.at == [1.0]


@pytest.mark.parametrize(("seconds", "attempts"), [(0.9, 0), (1.0, 0), (1.1, 1), (2.9, 1), (3.1, 2)])
async def test_none_begins_behind_the_deadline(seconds: float, attempts: int) -> None:
    rig = Rig([away()] * 5)
    with pytest.raises(ApiError):
        await rig.run(seconds=seconds)
    assert len(rig.at) == attempts
    assert rig.counted == ["made"] * attempts + ["deadline"] * (attempts < 2)


async def test_an_exhausted_budget_ends_it_and_says_so_to_the_tiers_above() -> None:
    rig = Rig([away()] * 5, settings=Retry(attempts=2, share=0.2, floor=1, backoff=Seconds(0.001)))
    with pytest.raises(ApiError) as last:
        await rig.run()
    assert (len(rig.at), rig.counted, last.value.pushback) == (1, ["made", "budget"], -1)


class Second:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.sampled_from(["call", "retry", "pause"]), st.floats(0.0, 4.0)), max_size=200),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(0, 3),
)
def test_retries_keep_within_the_budget(steps: list[tuple[str, float]], share: float, floor: int) -> None:
    clock = Second()
    budget = RetryBudget(share, floor, clock)
    calls, taken = list[float](), list[float]()
    for what, seconds in steps:
        if what == "pause":
            clock.now += seconds
        elif what == "call":
            budget.called(clock.now)
            calls.append(clock.now)
        else:
            lately = [sum(moment > clock.now - WINDOW for moment in moments) for moments in (taken, calls)]
            surely = [sum(int(moment) > int(clock.now) - WINDOW for moment in moments) for moments in (taken, calls)]
            allowed = budget.take()
            assert allowed == (surely[0] + 1 <= share * surely[1] + floor)
            if allowed:
                taken.append(clock.now)
                # Whole seconds forget up to one second early, retries and calls alike.
                assert surely[0] + 1 <= share * lately[1] + floor


def test_in_a_full_outage_the_load_grows_by_a_fifth_and_the_floor() -> None:
    clock = Second()
    budget = RetryBudget(0.2, 3, clock)
    made = 0
    for number in range(100_000):
        clock.now += 0.001
        budget.called(clock.now)
        made += budget.take()
        if number == 999:
            assert made <= 0.2 * 1000 + 3
    assert 0.15 * 100_000 < made <= 0.2 * 100_000 + 3 * 11
