"""Bounded polling of a real condition, for what happens in other processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(
    condition: Callable[[], Awaitable[bool] | bool], what: str, *, within: float = 30.0, every: float = 0.02
) -> None:
    """Return once `condition()` is true; AssertionError naming `what` when it is not within the bound (seconds)."""
    end = time.monotonic() + within
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what}")
        await asyncio.sleep(every)
