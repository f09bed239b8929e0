"""Deadlines: what is left of a call, and that a block cannot outstay it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chassis import context
from chassis.clock import FakeClock
from chassis.context import Call
from chassis.errors import ApiError, Code
from chassis.resilience.deadline import budget, margin, remaining, within
from chassis.store.port import StoreTimeout


@contextmanager
def call(clock: FakeClock, seconds: float | None) -> Iterator[None]:
    token = context.enter(Call("m", "r", None if seconds is None else clock.monotonic() + seconds))
    try:
        yield
    finally:
        context.leave(token)


async def test_what_is_left() -> None:
    clock = FakeClock()
    assert remaining(clock) is None
    with call(clock, None):
        assert remaining(clock) is None
        assert budget(clock, 3) == 3
    with call(clock, 2):
        assert remaining(clock) == 2
        assert budget(clock, 3) == 2
        assert budget(clock, 1) == 1
        await clock.advance(5)
        assert remaining(clock) == -3
        assert budget(clock, 1) == -3


def test_a_part_is_kept_back_for_the_way_home() -> None:
    assert margin(0.1, 0.01) == 0.01
    assert margin(10, 0.01) == 0.5


async def test_a_block_that_is_done_in_time_is_left_alone() -> None:
    async with within(FakeClock(), 5):
        await asyncio.sleep(0)


async def test_a_block_that_takes_too_long_is_ended_with_the_named_error() -> None:
    with pytest.raises(ApiError) as caught:
        async with within(FakeClock(), 0.01):
            await asyncio.Event().wait()
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    with pytest.raises(StoreTimeout):
        async with within(FakeClock(), 0.01, StoreTimeout):
            await asyncio.Event().wait()


async def test_the_deadline_of_the_call_comes_first() -> None:
    clock = FakeClock()
    with call(clock, 0.01), pytest.raises(ApiError):
        async with within(clock, 3600):
            await asyncio.Event().wait()


async def test_a_block_that_is_late_already_is_not_begun() -> None:
    clock, begun = FakeClock(), False
    with call(clock, 1):
        await clock.advance(1)
        with pytest.raises(ApiError):
            async with within(clock, 3600):
                begun = True
    assert not begun


async def test_a_timeout_of_the_blocks_own_keeps_its_name() -> None:
    with pytest.raises(TimeoutError):
        async with within(FakeClock(), 5):
            raise TimeoutError


async def test_a_cancelled_block_is_cancelled_and_not_late() -> None:
    async def block() -> None:
        async with within(FakeClock(), 5):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
