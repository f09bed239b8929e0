"""Where SQLite's calls run: on the event loop while the disk is quick, on a thread while it is not.

A thread gets the interpreter lock late beside a busy loop, and every return from SQLite to Python waits for it (figures and
their caveats: docs/store.md). So short calls run on the loop, and one that turns out slow sends the following ones to
threads, for longer each time: a disk that stays slow costs the loop one such call a second.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from chassis.clock import Clock

SLOW: Final = 0.010
"""Seconds; ten times what the longest short call takes from the page cache."""
SHORTEST: Final = 0.05
"""Seconds for which calls go to threads after a slow one: most often it was the process that had to wait for a
processor, and not the disk."""
LONGEST: Final = 1.0
"""What this doubles up to while calls are slow again soon after."""

_T = TypeVar("_T")


class Pace:
    """What the latest calls on the loop say about the disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._again = clock.monotonic()
        self._hold = SHORTEST

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
                # A disk that was quick for as long as it was last given up for has recovered.
                recovered = started - self._again >= self._hold
                self._hold = SHORTEST if recovered else min(2 * self._hold, LONGEST)
                self._again = ended + self._hold
