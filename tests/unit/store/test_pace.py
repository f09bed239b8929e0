"""A slow call on the loop sends the following ones to threads, for a while."""

from chassis.clock import FakeClock
from chassis.store.pace import HOLD, SLOW, Pace


async def test_one_slow_call_sends_the_next_ones_to_threads() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    assert pace.here(lambda: 5) == 5
    assert pace.quick()
    pace.here(lambda: clock._move_to(clock.monotonic() + SLOW * 2))
    assert not pace.quick()
    await clock.advance(HOLD)
    assert pace.quick()
