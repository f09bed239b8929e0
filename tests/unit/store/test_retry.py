"""Attempts: how many, how far apart, and none behind the deadline."""

import asyncio
from collections.abc import Sequence

import pytest

from chassis.clock import FakeClock
from chassis.store.retry import Backoff, Retrier


class Flaky:
    def __init__(self, clock: FakeClock, outcomes: Sequence[Exception | str]) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.at: list[float] = []

    async def __call__(self) -> str:
        self.at.append(self.clock.monotonic() - 1000)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def run(flaky: Flaky, *, retries: int = 2, draw: float = 1.0, deadline: float = 100.0) -> str:
    retrier = Retrier(flaky.clock, lambda: draw, retries, Backoff(base=1.0, cap=3.0))
    task = asyncio.ensure_future(
        retrier.run(flaky, lambda failure: isinstance(failure, ConnectionError), flaky.clock.monotonic() + deadline)
    )
    for _ in range(20):
        await flaky.clock.advance(0.5)
    assert task.done()
    return await task


async def test_the_waits_double_up_to_a_cap_and_are_drawn_at_random() -> None:
    for draw, expected in ((1.0, [0, 1, 3]), (0.5, [0, 0.5, 1.5]), (0.0, [0, 0, 0])):
        flaky = Flaky(FakeClock(), [ConnectionError(), ConnectionError(), "well"])
        assert await run(flaky, draw=draw) == "well"
        assert flaky.at == expected


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_attempts_are_one_more_than_retries(retries: int) -> None:
    flaky = Flaky(FakeClock(), [ConnectionError(str(number)) for number in range(5)])
    with pytest.raises(ConnectionError, match=str(retries)):
        await run(flaky, retries=retries)
    assert len(flaky.at) == retries + 1


async def test_another_failure_is_not_repeated() -> None:
    for first in ([], [ConnectionError()]):
        flaky = Flaky(FakeClock(), [*first, KeyError("x"), "well"])
        with pytest.raises(KeyError):
            await run(flaky)
        assert len(flaky.at) == len(first) + 1


@pytest.mark.parametrize(("deadline", "attempts"), [(0.9, 1), (1.0, 1), (1.5, 2), (2.9, 2), (3.1, 3)])
async def test_no_attempt_begins_behind_the_deadline(deadline: float, attempts: int) -> None:
    flaky = Flaky(FakeClock(), [ConnectionError() for _ in range(5)])
    with pytest.raises(ConnectionError):
        await run(flaky, deadline=deadline)
    assert len(flaky.at) == attempts
