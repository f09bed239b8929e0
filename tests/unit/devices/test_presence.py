"""The rule of heartbeats, under every order and repetition in which a network may deliver them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.devices.presence import (
    RETIRED_RUNS,
    SPREAD,
    Beat,
    Limits,
    Run,
    flush_due,
    follow,
    lapsed,
    next_interval,
)

BUDGETS = Limits(interval=30_000, offline_after=90_000, flush_interval=60_000)


def after(beats: list[Beat], run: Run | None = None) -> Run:
    current = run or Run()
    for beat in beats:
        current = follow(current, beat) or current
    return current


@st.composite
def delivered(draw: st.DrawFn) -> tuple[int, list[Beat]]:
    """The beats of one run, each at least once, in any order."""
    count = draw(st.integers(1, 8))
    beats = [Beat("b1", sequence) for sequence in range(1, count + 1)]
    again = draw(st.lists(st.sampled_from(beats), max_size=8))
    return count, draw(st.permutations(beats + again))


@given(delivered())
def test_any_order_and_repetition_of_one_run_ends_in_the_same_state(delivery: tuple[int, list[Beat]]) -> None:
    count, beats = delivery
    assert after(beats) == Run("b1", count)


@given(delivered())
def test_each_beat_is_news_at_most_once(delivery: tuple[int, list[Beat]]) -> None:
    run, news = Run(), []
    for beat in delivery[1]:
        following = follow(run, beat)
        if following is not None:
            news.append(beat.sequence)
            run = following
    assert news == sorted(set(news))


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=12), st.data())
def test_a_run_that_was_left_never_comes_back(boots: list[str], data: st.DataObject) -> None:
    run = Run()
    left: set[str] = set()
    for boot in boots:
        before = run.boot
        run = follow(run, Beat(boot, data.draw(st.integers(0, 5)))) or run
        if before is not None and run.boot != before:
            left.add(before)
        assert run.boot not in left


def test_a_new_run_starts_its_own_sequence() -> None:
    assert after([Beat("a", 900), Beat("b", 1)]) == Run("b", 1, ("a",))


def test_memory_of_runs_is_bounded() -> None:
    run = after([Beat(f"boot-{n}", 1) for n in range(RETIRED_RUNS + 5)])
    assert len(run.retired) == RETIRED_RUNS
    assert follow(run, Beat(run.retired[-1], 7)) is None


def test_uncounted_beats_are_always_news_and_move_nothing() -> None:
    run = Run("a", 7)
    assert follow(run, Beat()) == run
    assert follow(run, Beat("a", 0)) == run
    assert follow(Run(), Beat()) == Run()


def test_a_run_without_a_name_is_counted_like_any() -> None:
    assert follow(Run("", 5), Beat("", 4)) is None
    assert follow(Run("", 5), Beat("", 6)) == Run("", 6)


def test_silence_is_a_lapse_at_the_bound_and_not_before() -> None:
    assert not lapsed(1_000, 90_999, 90_000)
    assert lapsed(1_000, 91_000, 90_000)


@pytest.mark.parametrize(
    ("last", "flushed", "due"),
    [(159_000, 159_000, False), (150_000, 100_001, False), (150_000, 100_000, True), (70_000, 159_000, True)],
)
def test_the_store_is_written_each_interval_and_after_a_lapse(last: int, flushed: int, due: bool) -> None:  # noqa: FBT001 - a row of the table
    assert flush_due(last, flushed, 160_000, BUDGETS) is due


@given(st.integers(1, 3_600_000), st.floats(0, 1, exclude_max=True))
def test_the_next_interval_is_spread_and_never_longer(interval: int, share: float) -> None:
    told = next_interval(interval, share)
    assert 1 <= told <= interval
    assert told >= int(interval * (1 - SPREAD))


def test_without_the_cache_the_store_stays_fresh_enough_to_contradict_a_lapse() -> None:
    assert BUDGETS.fallback_interval == 30_000
    assert BUDGETS.fallback_interval + 2 * BUDGETS.interval <= BUDGETS.offline_after
    assert Limits(30_000, 10_000, 60_000).fallback_interval == 0
