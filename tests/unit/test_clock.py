"""The clocks: the machine's, and the one that tests hold the hands of."""

import asyncio
from datetime import UTC, datetime, timedelta

from chassis.clock import Clock, FakeClock, SystemClock


async def test_the_machines_clocks() -> None:
    clock: Clock = SystemClock()
    before = datetime.now(UTC)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().utcoffset() == timedelta(0)
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009
    await clock.sleep(-1)


async def test_it_stands_still_until_it_is_told_to_move() -> None:
    clock = FakeClock()
    wall, monotonic = clock.now(), clock.monotonic()
    await asyncio.sleep(0)
    assert (clock.now(), clock.monotonic()) == (wall, monotonic)
    await clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (wall + timedelta(seconds=2.5), monotonic + 2.5)


async def test_sleepers_wake_in_the_order_of_their_deadlines_and_at_their_time() -> None:
    clock = FakeClock()
    start = clock.monotonic()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic() - start))

    tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("c", 3), ("a", 1), ("b", 2), ("d", 9))]
    await clock.advance(0.5)
    assert not woken
    await clock.advance(2.5)
    assert woken == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    await clock.advance(6)
    assert woken[-1] == ("d", 9.0)
    await asyncio.gather(*tasks)


async def test_who_sleeps_again_while_time_passes_is_woken_again() -> None:
    clock = FakeClock()
    ticks = 0

    async def ticker() -> None:
        nonlocal ticks
        while True:
            await clock.sleep(1)
            ticks += 1

    task = asyncio.create_task(ticker())
    await clock.advance(5)
    assert ticks == 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(5)
    assert ticks == 5


async def test_no_time_to_sleep_only_yields() -> None:
    clock = FakeClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.monotonic() == FakeClock().monotonic()


async def test_the_wall_can_step_alone_and_wakes_nobody() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1))
    wall, monotonic = clock.now(), clock.monotonic()
    clock.step_wall(-3600)
    await asyncio.sleep(0)
    assert clock.now() == wall - timedelta(hours=1)
    assert clock.monotonic() == monotonic
    assert not task.done()
    await clock.advance(1)
    assert task.done()
