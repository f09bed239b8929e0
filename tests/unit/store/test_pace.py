"""A slow call on the loop sends the following ones to threads: for longer while it stays slow, briefly when it recovered."""

import pytest

from chassis.clock import FakeClock
from chassis.store.pace import LONGEST, SHORTEST, SLOW, Pace


def slow(clock: FakeClock, pace: Pace) -> None:
    pace.here(lambda: clock._move_to(clock.monotonic() + SLOW * 2))


async def held(clock: FakeClock, pace: Pace) -> float:
    """Seconds until calls may run on the loop again."""
    steps = 0
    while not pace.quick():
        await clock.advance(SHORTEST)
        steps += 1
    return round(steps * SHORTEST, 3)


async def test_one_slow_call_sends_the_next_ones_to_threads() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    assert pace.here(lambda: 5) == 5
    assert pace.quick()
    await clock.advance(1)
    slow(clock, pace)
    assert not pace.quick()
    await clock.advance(SHORTEST)
    assert pace.quick()


async def test_a_disk_that_stays_slow_is_tried_once_a_second() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    await clock.advance(1)
    holds = []
    for _ in range(7):
        slow(clock, pace)
        holds.append(await held(clock, pace))
    assert holds == pytest.approx([SHORTEST * 2**n for n in range(5)] + [LONGEST] * 2, abs=SHORTEST * 1.5)
    await clock.advance(LONGEST)
    slow(clock, pace)
    assert await held(clock, pace) == pytest.approx(SHORTEST, abs=SHORTEST * 1.5)
