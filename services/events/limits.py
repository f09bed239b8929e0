"""How fast a tenant may publish: token buckets, in this process, of events and of bytes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chassis.errors import ApiError, Code

_NOTHING: Final = 1e-6
"""Seconds: less than this is a rounding error, and who waited as long as was asked passes."""

TENANTS: Final = 10_000
"""Remembered at once; of more, the one that has not published for longest is forgotten, and begins with full buckets."""


@dataclass(slots=True)
class _Level:
    events: float
    bytes: float
    at: float


class PublishLimits:
    """Each bucket holds what a second brings, and is paid in full: a batch that is larger than a second's worth passes when
    the bucket is full, and what comes after it waits until it is paid for."""

    def __init__(self, events_a_second: float, bytes_a_second: float, monotonic: Callable[[], float]) -> None:
        self._events = events_a_second
        self._bytes = bytes_a_second
        self._monotonic = monotonic
        self._levels: OrderedDict[str, _Level] = OrderedDict()

    def take(self, tenant: str, events: int, size: int) -> None:
        """Raises RATE_LIMITED (RESOURCE_EXHAUSTED) that says when there will be enough; then nothing was taken."""
        level, most_events = self._level(tenant), max(1.0, self._events)
        wait = max(
            (min(events, most_events) - level.events) / self._events,
            (min(size, self._bytes) - level.bytes) / self._bytes,
        )
        if wait > _NOTHING:
            raise ApiError(
                Code.RESOURCE_EXHAUSTED,
                "RATE_LIMITED",
                f"The tenant publishes more than {self._events:g} events or {self._bytes:g} bytes a second.",
                retry_after=wait,
            )
        level.events -= events
        level.bytes -= size

    def _level(self, tenant: str) -> _Level:
        now, most_events = self._monotonic(), max(1.0, self._events)
        level = self._levels.get(tenant)
        if level is None:
            if len(self._levels) >= TENANTS:
                self._levels.popitem(last=False)
            level = self._levels[tenant] = _Level(most_events, self._bytes, now)
            return level
        self._levels.move_to_end(tenant)
        passed, level.at = now - level.at, now
        level.events = min(most_events, level.events + passed * self._events)
        level.bytes = min(self._bytes, level.bytes + passed * self._bytes)
        return level
