"""Whatever happens, in whatever order, a breaker's transitions are those of the design; and the check can fail."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from chassis.resilience.breaker import Breaker, BreakerOpen, Permit, State
from tests.unit.resilience.breaking import BUDGET, Hands, Model

_WAITS = (0.0, 0.5, 1.0, 5.0, 7.5, 14.5, 15.0, 30.0, 31.0)
_ANSWERS = st.sampled_from([False, False, True, None])


@dataclass(eq=False)
class _Asked:
    settle: Permit
    generation: int
    ended: bool = False


class Against(RuleBasedStateMachine):
    """One breaker and the model, told the same."""

    permits = Bundle("permits")

    def __init__(self, make: Callable[[Hands], Breaker] = lambda clock: Breaker("it", BUDGET, clock)) -> None:
        super().__init__()
        self.clock = Hands()
        self.breaker = make(self.clock)
        self.model = Model(self.clock.monotonic())

    @rule(seconds=st.sampled_from(_WAITS))
    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self.clock.pass_by(seconds)
        self.model.now = self.clock.monotonic()

    @rule(target=permits)
    def ask(self) -> _Asked | None:
        return self._ask()

    def _ask(self) -> _Asked | None:
        expected = self.model.admit()
        found = self._permit()
        if isinstance(found, BreakerOpen):
            assert found.retry_after == expected
            return None
        assert isinstance(expected, int), f"admitted, to be refused for {expected} s"
        return _Asked(found, expected)

    def _permit(self) -> Permit | BreakerOpen:
        try:
            return self.breaker.admit()
        except BreakerOpen as refused:
            return refused

    @rule(asked=permits, answered=_ANSWERS)
    def end(self, asked: _Asked | None, answered: bool | None) -> None:  # noqa: FBT001
        self._end(asked, answered)

    def _end(self, asked: _Asked | None, answered: bool | None) -> None:  # noqa: FBT001
        if asked is not None and not asked.ended:
            asked.ended = True
            asked.settle(answered)
            self.model.settle(asked.generation, answered)

    @rule(times=st.sampled_from([1, 2, 4, 5]), answered=_ANSWERS)
    def several(self, times: int, answered: bool | None) -> None:  # noqa: FBT001
        for _ in range(times):
            self._end(self._ask(), answered)
            self._same()

    @invariant()
    def same(self) -> None:
        self._same()

    def _same(self) -> None:
        assert self.breaker.state is self.model.state


_EXAMPLES = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def test_transitions_are_the_models() -> None:
    run_state_machine_as_test(Against, settings=_EXAMPLES)


class _AnyProbe(Breaker):
    """Lets every probe through."""

    def admit(self) -> Permit:
        self._probing = 0
        return super().admit()


class _HearsTheDead(Breaker):
    """Listens to calls of older generations."""

    def _permits_of_closed(self) -> Permit:
        settle = super()._permits_of_closed()

        def hears(answered: bool | None) -> None:  # noqa: FBT001
            if answered and self._state is not State.CLOSED:
                self._enter(State.CLOSED)
            settle(answered)

        return hears


class _InARow(Breaker):
    """Forgets its failures at a success, as purgatory does."""

    def _permits_of_closed(self) -> Permit:
        settles = [super()._permits_of_closed()]

        def settle(answered: bool | None) -> None:  # noqa: FBT001
            if answered:
                settles[0] = Breaker._permits_of_closed(self)
            settles[0](answered)

        return settle


class _CountsTheLeft(Breaker):
    """Takes a call whose caller has left for a failure."""

    def admit(self) -> Permit:
        settle = super().admit()
        return lambda answered: settle(bool(answered))


def _walk(bug: type[Breaker]) -> None:
    """The same machine by a long walk that chance leads, the same on each run: no bug that takes a few steps hides."""
    chance = Random(6)
    for _ in range(300):
        machine = Against(lambda clock: bug("it", BUDGET, clock))
        asked: list[_Asked | None] = []
        for _ in range(60):
            step = chance.random()
            if step < 0.2:
                machine._wait(chance.choice(_WAITS))
            elif step < 0.5:
                asked.append(machine._ask())
            else:
                one = asked.pop(chance.randrange(len(asked))) if asked and step < 0.8 else machine._ask()
                machine._end(one, chance.choice((False, False, True, None)))
            machine._same()


def test_a_long_walk_finds_no_difference() -> None:
    _walk(Breaker)


@pytest.mark.parametrize("bug", [_AnyProbe, _HearsTheDead, _InARow, _CountsTheLeft])
def test_seeded_bugs_are_caught(bug: type[Breaker]) -> None:
    with pytest.raises(AssertionError):
        _walk(bug)
