"""When a device counts as alive: the order of its heartbeats, what a heartbeat costs, and when silence is a lapse.

Times are whole milliseconds since the epoch, on the platform's clock; durations are milliseconds. `scripts.py` applies
the same rule inside the cache, for many replicas at once; a test holds the two together.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

RETIRED_RUNS: Final = 4
"""How many runs before the current one are remembered, so that a late heartbeat of theirs changes nothing."""

SPREAD: Final = 0.10
"""Share of the interval by which devices are spread, so that those that started together do not stay together."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat. `boot` names the run of the device, `sequence` counts from 1 within it; 0 is not counted."""

    boot: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Where a device is in its sequence of heartbeats. `boot` is None before the first that was counted."""

    boot: str | None = None
    sequence: int = 0
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The budgets of presence, in milliseconds."""

    interval: int
    offline_after: int
    flush_interval: int

    @property
    def fallback_interval(self) -> int:
        """Least time between two store writes of a device while the cache is away.

        Shorter than the flush interval where that is needed to keep the stored time within `offline_after`: a replica
        that still reaches the cache must not take for silent a device whose heartbeats reach another.
        """
        return min(self.flush_interval, max(0, self.offline_after - self.interval) // 2)


def millis(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)


def micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def follow(run: Run, beat: Beat) -> Run | None:
    """The run after `beat`, or None when the beat is old: repeated, overtaken by a later one, or of an earlier run."""
    if not beat.boot and not beat.sequence:
        return run
    if beat.boot == run.boot:
        if beat.sequence == 0:
            return run
        return replace(run, sequence=beat.sequence) if beat.sequence > run.sequence else None
    if beat.boot in run.retired:
        return None
    retired = run.retired if run.boot is None else (run.boot, *run.retired)[:RETIRED_RUNS]
    return Run(beat.boot, beat.sequence, retired)


def lapsed(last_seen: int, now: int, offline_after: int) -> bool:
    """Whether a device last seen then (0: never) is silent for too long."""
    return now - last_seen >= offline_after


def flush_due(last_seen: int, flushed: int, now: int, limits: Limits) -> bool:
    """Whether a new heartbeat must reach the store.

    One that ends a lapse always does: it may race with a sweep that is about to declare the device offline, and only
    the store's version lets exactly one of the two have its way.
    """
    return now - flushed >= limits.flush_interval or lapsed(last_seen, now, limits.offline_after)


def next_interval(interval: int, share: float) -> int:
    """The interval to tell a device, for a `share` drawn from [0, 1): never longer than the interval itself."""
    return max(1, round(interval * (1 - SPREAD * share)))
