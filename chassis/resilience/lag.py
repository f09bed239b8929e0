"""Whether this process's own event loop has been late: then a missed deadline says nothing of who was waited for."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

EVERY: Final = 0.05
"""Seconds between two samples."""
LATE: Final = 0.05
"""Seconds by which a sample comes late that counts: more than a busy loop takes for one round."""
OWN: Final = 0.3
"""Share of a core above which this process had work to be late for; below, the machine gave its cores to others."""


class LoopLag:
    """Samples the running loop from `start` to `stop`, by one timer. Times are the loop's, which are those of
    `SystemClock.monotonic`. `told` is called with each lag that is this process's own doing, 0 for others, and when it was
    seen, in seconds: a process that has little to do is not relieved by refusing it. `cpu` is what it has used, in seconds."""

    def __init__(
        self,
        told: Callable[[float, float], None] = lambda _lag, _now: None,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._told = told
        self._cpu = cpu
        self._used = self._sampled = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late_at = float("-inf")

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._used, self._sampled = self._cpu(), self._loop.time()
        self._arm(self._loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def late_since(self, moment: float) -> bool:
        """Whether the loop has been held up at any time after `moment`; False while it is not sampled."""
        if self._loop is None:
            return False
        return self._late_at >= moment or self._loop.time() - self._due > LATE

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + EVERY
        self._timer = loop.call_at(self._due, self._sample, loop)

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        now, used = loop.time(), self._cpu()
        if now - self._due > LATE:
            self._late_at = now
        own = used - self._used >= OWN * (now - self._sampled)
        self._used, self._sampled = used, now
        self._told(max(0.0, now - self._due) if own else 0.0, now)
        self._arm(loop)


def never_late(_moment: float) -> bool:
    """For what runs no loop of its own to look at."""
    return False
