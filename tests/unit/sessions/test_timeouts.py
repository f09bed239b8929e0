"""A session that is used lasts, one that is not ends in time, and its use is rarely written."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import ApiError
from services.sessions.timeouts import Limits, Timeouts, chosen, end_of, step_of, touch_at

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=60)
LENGTHS = st.integers(1, 400 * 86400).map(lambda seconds: timedelta(seconds=seconds))
LIMITS = Limits(
    idle=timedelta(minutes=30), idle_max=timedelta(days=1), absolute=timedelta(days=1), absolute_max=timedelta(days=30),
    step=STEP,
)  # fmt: skip


@given(LENGTHS, LENGTHS, st.lists(st.floats(0.01, 1.0), max_size=60))
def test_nobody_who_uses_a_session_is_thrown_out_early(idle: timedelta, absolute: timedelta, gaps: list[float]) -> None:
    """Uses at gaps of up to the whole idle time-out, each written only when that is due."""
    timeouts = Timeouts(idle, absolute)
    now = written = START
    writes = 0
    for gap in gaps:
        now += idle * gap
        if now >= START + absolute:
            assert end_of(START, written, timeouts, STEP) <= now
            return
        assert now < end_of(START, written, timeouts, STEP)
        if now >= touch_at(written, timeouts, STEP):
            written = now
            writes += 1
    assert writes <= (now - START) / step_of(idle, STEP)
    left_alone = end_of(START, written, timeouts, STEP)
    assert left_alone <= START + absolute
    assert left_alone <= now + idle + step_of(idle, STEP)
    assert step_of(idle, STEP) <= min(STEP, idle / 10)


@given(LENGTHS, LENGTHS, st.integers(-(10**7), 10**7))
def test_using_it_later_never_ends_it_sooner(idle: timedelta, absolute: timedelta, seconds: int) -> None:
    timeouts = Timeouts(idle, absolute)
    one, other = sorted((START, START + timedelta(seconds=seconds)))
    assert end_of(START, one, timeouts, STEP) <= end_of(START, other, timeouts, STEP)


def test_what_is_left_out_is_the_default_unless_the_maximum_is_smaller() -> None:
    assert chosen(None, None, LIMITS) == Timeouts(LIMITS.idle, LIMITS.absolute)
    tight = Limits(LIMITS.idle, timedelta(minutes=1), LIMITS.absolute, timedelta(hours=1), STEP)
    assert chosen(None, None, tight) == Timeouts(timedelta(minutes=1), timedelta(hours=1))
    asked = Timeouts(LIMITS.idle_max, timedelta(microseconds=1))
    assert chosen(asked.idle, asked.absolute, LIMITS) == asked


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(seconds=-1), timedelta(days=30, microseconds=1)])
def test_what_is_beyond_the_maximum_or_in_the_past_is_refused(asked: timedelta) -> None:
    with pytest.raises(ApiError) as refused:
        chosen(asked, asked, LIMITS)
    assert [each.field for each in refused.value.violations] == ["session.idle_ttl", "session.absolute_ttl"]
