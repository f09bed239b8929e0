"""Refusing what a process would be too late for anyway, before it costs anything: by how long its event loop lets things wait.

Additive increase, multiplicative decrease of the number of calls that are admitted at once. What is refused first is what
costs most and lasts longest: writes and new streams at half of the calls in progress at which reads are. Sources: Welsh,
Culler, Brewer, "SEDA", 2001 (queueing as the signal); Chiu, Jain, 1989 (AIMD).
"""

import math
from collections.abc import Callable
from typing import Final

from chassis.config import Shed
from chassis.errors import ApiError, unavailable
from chassis.policies import Policy
from chassis.telemetry.metrics import Metrics

FLOOR: Final = 64
"""Calls that are always admitted at once. A loop works that many off within some hundredths of a second, whatever its lag
says of the machine that it runs on."""
_DECREASE: Final = 0.8
_INCREASE: Final = 0.16
"""Calls more for each millisecond without lag: from the floor to two thousand in twelve seconds."""
_CALM: Final = 1.0
"""Seconds without lag after which streams are taken again."""
_COME_BACK: Final = tuple(0.1 + 0.025 * step for step in range(8))
"""Seconds, one of them by chance: those who were refused together do not come back together."""


def overloaded(random: Callable[[], float]) -> ApiError:
    """The refusal."""
    wait = _COME_BACK[int(random() * len(_COME_BACK))]
    return unavailable("OVERLOADED", "The service has more to do than it can: come back later.", retry_after=wait)


class Lane:
    """Calls of one kind. A call is refused when there are more than `most` in progress, itself included."""

    __slots__ = ("most", "refused")

    def __init__(self, refused: Callable[[], None] = lambda: None) -> None:
        self.most: float = math.inf
        self.refused = refused


class Shedder:
    """The calls of one process. `in_progress` counts unary calls of all lanes, by whoever makes them; streams do not
    count, as they last, and are admitted as long as nothing is refused.

    `sample` is called with each lag of the event loop. Above `shed.lag` for `shed.after` the number is lowered, and once
    more for each such time; without lag it is raised to `most` again (None: any number).
    """

    def __init__(self, shed: Shed, most: int | None, metrics: Metrics, random: Callable[[], float]) -> None:
        self._shed = shed
        self._most = self._limit = math.inf if most is None else float(most)
        self._floor = min(float(FLOOR), self._most)
        self._random = random
        self._late_since: float | None = None
        self._calm_since = -math.inf
        self._last = math.inf
        self._gauge = metrics.gauge("bas_shed_limit", "Calls that are admitted at once.")
        self._lag = metrics.gauge("bas_loop_lag_seconds", "How late the event loop was last.")
        refused = metrics.counter("bas_shed_refused", "Calls refused under overload.", ("kind",))
        self.in_progress = 0
        self.reads, self.writes, self.streams = (Lane(refused.labels(each).inc) for each in ("read", "write", "stream"))
        self.exempt = Lane()
        self._set(self._limit)

    @property
    def limit(self) -> float:
        """Calls that are admitted at once."""
        return math.floor(self._limit) if self._limit < math.inf else self._limit

    def lane(self, policy: Policy, *, streams: bool) -> Lane:
        """The lane of a method. What needs no scope (health, reflection) is never refused."""
        if not policy.scope:
            return self.exempt
        if streams:
            return self.streams
        return self.reads if policy.scope.endswith(":read") else self.writes

    def refuse(self, lane: Lane) -> ApiError:
        """The error for a call in a lane that is full."""
        lane.refused()
        return overloaded(self._random)

    def sample(self, lag: float, now: float) -> None:
        """`lag` seconds, seen at `now` (monotonic seconds)."""
        self._lag.set(lag)
        if not self._shed.enabled:
            return
        if lag > self._shed.lag:
            if self._late_since is None:
                self._late_since = now - lag
            self._calm_since = math.inf
            if now - self._late_since >= self._shed.after:
                self._late_since = now
                self._lower()
        else:
            self._late_since = None
            self._calm_since = min(self._calm_since, now)
            if self._limit < self._most:
                self._set(min(self._most, self._limit + max(0.0, now - self._last) * 1000 * _INCREASE))
            if now - self._calm_since >= _CALM:
                self.streams.most = math.inf
        self._last = now

    def _lower(self) -> None:
        self.streams.most = -1
        self._set(max(self._floor, min(self._limit, self.in_progress) * _DECREASE))

    def _set(self, limit: float) -> None:
        self._limit = limit
        self.reads.most = self.limit
        self.writes.most = self.limit if limit >= self._most else max(self._floor, limit // 2)
        self._gauge.set(self.limit)


def never_shed() -> Shedder:
    """For tests, and what must not refuse."""
    return Shedder(Shed(enabled=False), None, Metrics(), lambda: 0.5)
