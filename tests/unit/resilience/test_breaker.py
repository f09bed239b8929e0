"""The breaker: when it opens, whom it lets through, what it does not listen to. Time is the test's."""

import gc
import tracemalloc

import pytest

from chassis.cache.client import CacheBreakerOpen
from chassis.cache.port import CacheUnavailable
from chassis.config import Breaker as Budget
from chassis.config import Seconds
from chassis.errors import Code
from chassis.resilience.breaker import Breaker, BreakerOpen, Permit, State
from chassis.store.guarded import StoreBreakerOpen
from chassis.store.port import StoreUnavailable
from tests.unit.resilience.breaking import BUDGET, Hands


def made(clock: Hands, budget: Budget = BUDGET) -> Breaker:
    return Breaker("devices", budget, clock)


def now(breaker: Breaker) -> State:
    """Its state, which calls change: to the type checker an attribute stays what it was found to be."""
    return breaker.state


def opened(clock: Hands) -> Breaker:
    breaker = made(clock)
    for _ in range(5):
        breaker.admit()(False)
    assert now(breaker) is State.OPEN
    return breaker


def test_five_failures_within_the_window_open_it() -> None:
    clock = Hands()
    breaker = made(clock)
    for _ in range(4):
        breaker.admit()(False)
        clock.pass_by(7.5)
    assert now(breaker) is State.CLOSED
    breaker.admit()(False)  # the first was 30 s ago
    assert now(breaker) is State.OPEN


def test_failures_that_lie_further_apart_do_not() -> None:
    clock = Hands()
    breaker = made(clock)
    for _ in range(50):
        breaker.admit()(False)
        clock.pass_by(7.6)
    assert now(breaker) is State.CLOSED


def test_a_dependency_that_fails_four_times_of_five_is_found_out() -> None:
    breaker = made(Hands())
    outcomes = []
    for number in range(20):
        if now(breaker) is State.CLOSED:
            outcomes.append(number % 5 == 4)
            breaker.admit()(outcomes[-1])
    assert now(breaker) is State.OPEN
    assert outcomes == [False, False, False, False, True, False]


def test_a_few_failures_among_very_many_answers_are_no_outage() -> None:
    breaker = made(Hands())
    for number in range(10_000):
        breaker.admit()(number % 200 != 0)
    assert now(breaker) is State.CLOSED
    for number in range(10_000):
        if now(breaker) is State.CLOSED:
            breaker.admit()(number % 90 != 0)
    assert now(breaker) is State.OPEN


def test_what_says_nothing_of_the_dependency_changes_nothing() -> None:
    clock = Hands()
    breaker = made(clock)
    for _ in range(1000):
        breaker.admit()(None)
    assert now(breaker) is State.CLOSED
    breaker = opened(clock)
    clock.pass_by(15)
    for _ in range(10):
        breaker.admit()(None)
        assert now(breaker) is State.HALF_OPEN


def test_an_open_one_says_when_it_probes() -> None:
    clock = Hands()
    breaker = opened(clock)
    clock.pass_by(5)
    with pytest.raises(BreakerOpen) as refused:
        breaker.admit()
    error = refused.value
    assert (error.code, error.reason, dict(error.metadata)) == (
        Code.UNAVAILABLE,
        "BREAKER_OPEN",
        {"dependency": "devices"},
    )
    assert error.retry_after == 10


def test_one_that_was_heard_of_otherwise_is_probed_at_once() -> None:
    clock = Hands()
    breaker = opened(clock)
    breaker.look_again()
    assert now(breaker) is State.OPEN
    breaker.admit()(False)
    assert now(breaker) is State.OPEN
    with pytest.raises(BreakerOpen):
        breaker.admit()
    breaker.look_again()
    breaker.admit()(True)
    assert now(breaker) is State.CLOSED
    breaker.look_again()
    assert now(breaker) is State.CLOSED


def test_two_probes_at_a_time_and_the_first_answer_closes_it() -> None:
    clock = Hands()
    breaker = opened(clock)
    clock.pass_by(15)
    first, second = breaker.admit(), breaker.admit()
    for _ in range(100):
        with pytest.raises(BreakerOpen) as refused:
            breaker.admit()
        assert refused.value.retry_after == 1
    second(True)
    assert now(breaker) is State.CLOSED
    first(False)
    assert now(breaker) is State.CLOSED
    for _ in range(4):
        breaker.admit()(False)
    assert now(breaker) is State.CLOSED, "the probe's failure was of another generation"


def test_a_probe_that_fails_opens_it_for_its_whole_time() -> None:
    clock = Hands()
    breaker = opened(clock)
    clock.pass_by(20)
    breaker.admit()(False)
    assert (now(breaker), breaker.opened_at) == (State.OPEN, clock.monotonic())
    clock.pass_by(14.9)
    with pytest.raises(BreakerOpen):
        breaker.admit()


def test_a_probe_that_says_nothing_makes_room_for_another_and_only_once() -> None:
    clock = Hands()
    breaker = opened(clock)
    clock.pass_by(15)
    first, _second = breaker.admit(), breaker.admit()
    first(None)
    first(None)
    breaker.admit()
    with pytest.raises(BreakerOpen):
        breaker.admit()


def test_probes_that_never_end_are_given_up() -> None:
    clock = Hands()
    breaker = opened(clock)
    clock.pass_by(15)
    lost = [breaker.admit(), breaker.admit()]
    clock.pass_by(15)
    found = breaker.admit()
    for settle in lost:
        settle(False)
    assert now(breaker) is State.HALF_OPEN
    found(True)
    assert now(breaker) is State.CLOSED


def test_what_was_begun_before_it_opened_cannot_close_it() -> None:
    clock = Hands()
    breaker = made(clock)
    late = [breaker.admit() for _ in range(3)]
    for _ in range(5):
        breaker.admit()(False)
    late.pop()(True)
    assert now(breaker) is State.OPEN
    clock.pass_by(15)
    probe = breaker.admit()
    late.pop()(True)
    assert now(breaker) is State.HALF_OPEN
    probe(True)
    for _ in range(4):
        breaker.admit()(False)
    late.pop()(False)
    assert now(breaker) is State.CLOSED


def test_refusals_are_of_the_kind_that_the_dependencys_users_know() -> None:
    for kind, known in ((CacheBreakerOpen, CacheUnavailable), (StoreBreakerOpen, StoreUnavailable)):
        breaker = Breaker("it", Budget(failures=1), Hands(), refusal=kind)
        breaker.admit()(False)
        with pytest.raises(known) as refused:
            breaker.admit()
        assert (refused.value.reason, refused.value.retry_after) == ("BREAKER_OPEN", 15)


def test_each_refusal_is_an_error_of_its_own_and_none_is_kept() -> None:
    breaker = opened(Hands())

    def refuse() -> BreakerOpen:
        try:
            breaker.admit()
        except BreakerOpen as refused:
            return refused
        raise AssertionError

    assert refuse() is not refuse()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            refuse()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000, "bytes; one exception raised again and again keeps 2 KB each time"


def test_the_next_step_is_told_once() -> None:
    clock, seen = Hands(), list[State]()
    breaker = Breaker("it", Budget(failures=2, half_open_after=Seconds(1)), clock, changed=seen.append)
    permits: list[Permit] = [breaker.admit() for _ in range(5)]
    for settle in permits:
        settle(False)
    assert seen == [State.OPEN]
    clock.pass_by(1)
    breaker.admit()(True)
    assert seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]
