"""What the tests of breakers share: a breaker on a clock of its own, and the design as plainly as it can be written."""

from dataclasses import dataclass, field

from chassis.clock import FakeClock
from chassis.config import Breaker as Budget
from chassis.config import Seconds
from chassis.resilience.breaker import SOON, State

BUDGET = Budget(failures=5, window=Seconds(30), half_open_after=Seconds(15), probes=2, share=0.01)


class Hands(FakeClock):
    """A clock that is moved without a loop."""

    def pass_by(self, seconds: float) -> None:
        self._move_to(self._monotonic + seconds)


@dataclass
class Model:
    """The design, without any care for speed: every result is kept, and all is counted anew each time."""

    now: float
    budget: Budget = BUDGET
    state: State = State.CLOSED
    generation: int = 0
    since: float = 0.0
    results: list[tuple[float, bool]] = field(default_factory=list)
    probing: int = 0
    probed: float = 0.0

    def admit(self) -> int | float:
        """The generation of the permit, or, as a float, when to come back."""
        if self.state is State.OPEN:
            if self.now < self.since + self.budget.half_open_after:
                return float(self.since + self.budget.half_open_after - self.now)
            self._enter(State.HALF_OPEN)
        if self.state is State.HALF_OPEN:
            if self.probing >= self.budget.probes:
                if self.now < self.probed + self.budget.half_open_after:
                    return min(SOON, float(self.budget.half_open_after))
                self.generation += 1
                self.probing = 0
            self.probing += 1
            self.probed = self.now
        return self.generation

    def settle(self, generation: int, answered: bool | None) -> None:  # noqa: FBT001
        if generation != self.generation:
            return
        if self.state is State.HALF_OPEN:
            self.probing -= 1
            if answered is not None:
                self._enter(State.CLOSED if answered else State.OPEN)
        elif answered is not None:
            self.results.append((self.now, answered))
            failed = [at for at, (_, well) in enumerate(self.results) if not well][-self.budget.failures :]
            if not answered and len(failed) == self.budget.failures:
                first = failed[0]
                lately = self.results[first][0] >= self.now - self.budget.window
                if lately and len(failed) >= self.budget.share * len(self.results[first:]):
                    self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self.since = self.now
        self.probing = 0
        self.results = []
