"""One timer for all."""

import asyncio

from chassis.clock import FakeClock
from chassis.module import Background
from services.events.wheel import Wheel
from tests.unit.events.rig import end, run


class Bell:
    def __init__(self, clock: FakeClock, again: float | None = None) -> None:
        self.armed: int | None = None
        self.rung: list[float] = []
        self._clock = clock
        self._again = again

    def on_time(self, now: float) -> float | None:
        self.rung.append(round(now - 1000, 6))
        return None if self._again is None else now + self._again


async def test_each_is_looked_at_when_it_is_due_and_at_most_a_tick_later() -> None:
    clock = FakeClock()
    wheel = Wheel(clock, 0.25)
    once, often, never, sooner = Bell(clock), Bell(clock, 1.0), Bell(clock), Bell(clock)
    wheel.arm(once, 1000.6)
    wheel.arm(often, 1001)
    wheel.arm(never, 1001)
    wheel.disarm(never)
    wheel.arm(sooner, 1005)
    wheel.arm(sooner, 1002)
    wheel.arm(sooner, 1004)
    task = asyncio.create_task(run(Background("wheel", wheel.run)))
    await clock.advance(6)
    await end(task)
    assert once.rung == [0.75]
    assert often.rung == [1.25, 2.5, 3.75, 5.0]
    assert never.rung == []
    assert sooner.rung == [2.25]
    assert wheel._slots.keys() == {often.armed}


async def test_one_turn_may_move_another() -> None:
    clock = FakeClock()
    wheel = Wheel(clock, 0.25)
    second = Bell(clock)

    class Mover(Bell):
        def on_time(self, now: float) -> float | None:
            wheel.disarm(second)
            wheel.arm(second, now + 1)
            return super().on_time(now)

    first = Mover(clock)
    wheel.arm(first, 1001)
    wheel.arm(second, 1001)
    await clock.advance(1.5)
    wheel.turn()
    assert first.rung == [1.5]
    assert second.rung == []
    await clock.advance(1.5)
    wheel.turn()
    assert second.rung == [3.0]
    assert not wheel._slots
