"""How long to wait before something that ended is started again."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential from `first` to `longest` seconds, varied down to half by `random()` (0 to 1), so that parts that
    died together do not come back together. What ran for `settled` seconds starts again from the beginning."""

    random: Callable[[], float]
    first: float = 0.1
    longest: float = 10.0
    settled: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds before the next start after `failures` (at least 1) ends in a row."""
        full = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + 0.5 * self.random())
