"""What is not to be tried now: a kind whose consumer is away, a tenant that it wants no more of, a lane that is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from chassis.clock import Clock
from chassis.errors import ApiError, Code

FIRST: Final = 0.1
"""Seconds of the first wait; each further one is twice as long."""
REMEMBERED: Final = 10_000
"""Names and refusals kept. What is dropped is tried sooner, and refused more often before it is parked."""

AWAY: Final = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.CANCELLED,
        Code.ABORTED,
        Code.UNAUTHENTICATED,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
    }
)
"""What is said of the consumer, its load, or the one who calls, and not of what was to be delivered: keys that are being
exchanged and a consumer of an older release must not park what they would take tomorrow."""


def is_away(failure: BaseException) -> bool:
    """Whether to try again for as long as it lasts."""
    return isinstance(failure, TimeoutError) or (isinstance(failure, ApiError) and failure.code in AWAY)


_T = TypeVar("_T")


@dataclass(slots=True)
class _Block:
    until: float
    failures: int


class Blocks:
    """Exponential back-off with jitter by name. `random` gives floats from 0 to 1."""

    def __init__(self, clock: Clock, random: Callable[[], float], longest: float) -> None:
        self._clock = clock
        self._random = random
        self._longest = longest
        self._blocks: dict[str, _Block] = {}
        self._refusals: dict[str, int] = {}

    def holds(self, *names: str) -> bool:
        """Whether any of them is not to be tried now."""
        if not self._blocks:
            return False
        now = self._clock.monotonic()
        found = (self._blocks.get(name) for name in names)
        return any(block.until > now for block in found if block is not None)

    def failing(self, name: str) -> bool:
        """Whether its last try failed, may it be tried now or not."""
        return name in self._blocks

    def fail(self, name: str, failure: BaseException) -> None:
        """It failed just now: wait, longer each time, and no less than the failure asks for within the longest wait."""
        block = self._blocks.pop(name, None) or _Block(0.0, 0)
        wait = min(self._longest, FIRST * 2.0 ** min(block.failures, 30)) * (0.5 + self._random() / 2)
        asked = failure.retry_after if isinstance(failure, ApiError) else None
        until = self._clock.monotonic() + max(wait, min(asked or 0.0, self._longest))
        _keep(self._blocks, name, _Block(until, block.failures + 1))

    def refused(self, effect_id: str) -> int:
        """One refusal more of an effect; how many there are."""
        times = self._refusals.pop(effect_id, 0) + 1
        _keep(self._refusals, effect_id, times)
        return times

    def settled(self, effect_id: str) -> None:
        self._refusals.pop(effect_id, None)

    def clear(self, *names: str) -> None:
        if self._blocks:
            for name in names:
                self._blocks.pop(name, None)

    def next(self) -> float | None:
        """Seconds until the first of them may be tried again; None when nothing waits."""
        now = self._clock.monotonic()
        return min((block.until - now for block in self._blocks.values() if block.until > now), default=None)


def _keep(held: dict[str, _T], name: str, value: _T) -> None:
    while len(held) >= REMEMBERED:
        held.pop(next(iter(held)))
    held[name] = value
