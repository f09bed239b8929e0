"""Where SQLite's calls run: on the event loop while the disk is quick, on a thread while it is not.

Measured with a loop that is never idle: a point read on the loop takes 20 µs, on a thread 2.2 ms (p99 15 ms), a page
of 50 documents 0.3 ms against 50 ms, because every return from SQLite to Python waits up to 5 ms for the interpreter
lock. So short calls run on the loop, and one that turns out slow sends the following ones to threads for a while: a
slow disk costs the loop one such call a second.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from chassis.clock import Clock

SLOW: Final = 0.010
"""Seconds; ten times what the longest short call takes from the page cache."""
HOLD: Final = 1.0
"""Seconds for which calls then go to threads."""

_T = TypeVar("_T")


class Pace:
    """What the latest calls on the loop say about the disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._again = clock.monotonic()

    def quick(self) -> bool:
        """Whether a short call may run on the loop."""
        return self._clock.monotonic() >= self._again

    def here(self, call: Callable[[], _T]) -> _T:
        """Run a short call on the loop, and remember when it was slow."""
        started = self._clock.monotonic()
        try:
            return call()
        finally:
            ended = self._clock.monotonic()
            if ended - started > SLOW:
                self._again = ended + HOLD
