"""When a session ends, and when its use is worth a write. No I/O; durations and moments are exact.

Use reaches the store in coarse steps, so a session may have been used up to one step after the time that is stored. Its
idle time-out therefore counts from one step later: nobody who uses a session is thrown out early, and one that is left
alone ends at most a step late. A step is at most a tenth of the idle time-out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Violation, invalid_argument

_STEPS_IN_IDLE: Final = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The service's defaults and maxima."""

    idle: timedelta
    idle_max: timedelta
    absolute: timedelta
    absolute_max: timedelta
    step: timedelta


@dataclass(frozen=True, slots=True)
class Timeouts:
    idle: timedelta
    absolute: timedelta


def chosen(idle: timedelta | None, absolute: timedelta | None, limits: Limits) -> Timeouts:
    """What was asked for, or the defaults, which give way to a smaller maximum. Raises INVALID_ARGUMENT."""
    problems = [
        Violation(f"session.{name}", f"must be more than 0 s and at most {most.total_seconds():g} s")
        for name, asked, most in (
            ("idle_ttl", idle, limits.idle_max),
            ("absolute_ttl", absolute, limits.absolute_max),
        )
        if asked is not None and not timedelta(0) < asked <= most
    ]
    if problems:
        raise invalid_argument(*problems)
    return Timeouts(
        min(limits.idle, limits.idle_max) if idle is None else idle,
        min(limits.absolute, limits.absolute_max) if absolute is None else absolute,
    )


def step_of(idle: timedelta, step: timedelta) -> timedelta:
    """The step in which use of a session with that idle time-out is stored."""
    return min(step, idle / _STEPS_IN_IDLE)


def end_of(created: datetime, last_seen: datetime, timeouts: Timeouts, step: timedelta) -> datetime:
    """From which moment on the session is over, if it is not used again."""
    return min(created + timeouts.absolute, last_seen + timeouts.idle + step_of(timeouts.idle, step))


def touch_at(last_seen: datetime, timeouts: Timeouts, step: timedelta) -> datetime:
    """From which moment on the session's use is written to the store."""
    return last_seen + step_of(timeouts.idle, step)
