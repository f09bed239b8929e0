"""Deadlines: what is left of the call in progress, and bounding an await by it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis import context
from chassis.clock import Clock
from chassis.errors import ApiError, deadline_exceeded


def remaining(clock: Clock) -> float | None:
    """Seconds left of the call in progress (negative when late), or None without a call or a deadline."""
    call = context.current()
    if call is None or call.deadline is None:
        return None
    return call.deadline - clock.monotonic()


def margin(left: float, least: float) -> float:
    """The part of `left` seconds kept back for the way home: the larger of `least` and 5 %."""
    return max(least, left * 0.05)


def budget(clock: Clock, seconds: float) -> float:
    """The earlier of `seconds` from now and the call's deadline, as seconds from now; may be negative."""
    left = remaining(clock)
    return seconds if left is None else min(seconds, left)


@asynccontextmanager
async def within(clock: Clock, seconds: float, late: Callable[[], ApiError] = deadline_exceeded) -> AsyncIterator[None]:
    """Bound the block by `budget(clock, seconds)`; raises `late()` when it passes, at once when it has passed already."""
    allowed = budget(clock, seconds)
    if allowed <= 0:
        raise late()
    try:
        async with asyncio.timeout(allowed) as bound:
            yield
    except TimeoutError:
        # A TimeoutError of the block's own is not ours to rename.
        if bound.expired():
            raise late() from None
        raise
