"""The removal of expired documents, for an engine that has to do it by itself."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.errors import ApiError

INTERVAL: Final = 60.0
"""Seconds between sweeps: who reads a document checks its expiry, so a sweep only gives back space."""
BATCH: Final = 200
"""Documents a transaction."""
PAUSE: Final = 0.05
"""Seconds between full batches: after a long stop, what has piled up goes at some 4,000 a second beside the callers."""


async def sweep_forever(sweep: Callable[[int], Awaitable[int]], clock: Clock) -> None:
    """Call `sweep(limit)`, which returns how many it removed, until cancelled. One that fails is made up for by the next."""
    while True:
        await clock.sleep(INTERVAL)
        try:
            while await sweep(BATCH) == BATCH:
                await clock.sleep(PAUSE)
        except ApiError as failure:
            structlog.get_logger("store.expiry").warning("sweep cut short", reason=failure.reason)
