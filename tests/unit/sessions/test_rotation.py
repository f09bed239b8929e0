"""Refreshing never forks: one successor a token, for as long as its grace lasts, and theft after it."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.sessions.rotation import REMEMBERED, Secret, Standing, exchanged, full, same, standing

GRACE = 30_000_000
FIRST = Secret(1, b"1")


class Refreshing(RuleBasedStateMachine):
    """Whoever holds any token of the session tries it at any time; a model knows when each was exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = FIRST
        self.now = 10**15
        self.exchanged_at: dict[int, int] = {}

    @rule(seconds=st.sampled_from((0, 1, 4, 29, 30, 31, 300)))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    @rule(age=st.integers(-1, 10))
    def use(self, age: int) -> None:
        generation = self.secret.generation - age
        found = standing(generation, self.secret, self.now, GRACE)
        if age < 0:
            assert found is Standing.UNKNOWN
        elif age == 0:
            assert found is Standing.CURRENT
            if not full(self.secret, self.now, GRACE):
                self.exchanged_at[generation] = self.now
                self.secret = exchanged(self.secret, b"%d" % (generation + 1), self.now)
                assert self.secret.generation == generation + 1
        elif generation < 1:
            assert found is Standing.STOLEN
        else:
            in_grace = self.now - self.exchanged_at[generation] <= GRACE
            assert found is (Standing.IN_GRACE if in_grace else Standing.STOLEN)

    @invariant()
    def what_is_kept_is_bounded_and_the_current_tokens(self) -> None:
        assert len(self.secret.exchanged) <= REMEMBERED
        assert self.secret.digest == b"%d" % self.secret.generation


TestRefreshing = Refreshing.TestCase


@given(st.lists(st.integers(-(10**9), 10**9), max_size=REMEMBERED), st.integers(-(10**9), 10**9))
def test_a_clock_that_jumps_makes_no_thief_of_a_repetition(moments: list[int], now: int) -> None:
    """Whatever the clock did: a token exchanged just now is in its grace, and older ones are not good for longer."""
    secret = FIRST
    for number, moment in enumerate(moments):
        secret = exchanged(secret, b"%d" % number, moment)
    after = exchanged(secret, b"x", now)
    assert standing(secret.generation, after, now, GRACE) is Standing.IN_GRACE
    assert list(after.exchanged) == sorted(after.exchanged, reverse=True)


def test_digests_are_compared_whole() -> None:
    assert same(b"a" * 32, b"a" * 32)
    assert not same(b"a" * 32, b"a" * 31 + b"b")
    assert not same(b"a" * 32, b"a" * 31)
