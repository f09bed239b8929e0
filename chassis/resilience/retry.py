"""Repeating a call to another process, in this one place: by its policy, within its deadline and a budget.

The first attempt costs an addition; tenacity is entered only when it has failed. Sources: gRFC A6 (pushback, throttling),
AIP-194; "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import tenacity

from chassis import config
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.resilience.breaker import BreakerOpen

ATTEMPT_KEY: Final = "bas-attempt"
"""Metadata of a repetition: how many attempts were made before. Who gets it repeats nothing on its behalf."""
WINDOW: Final = 10
"""Seconds whose calls and retries the budget weighs."""
_DOUBLINGS: Final = 6

_T = TypeVar("_T")


class RetryBudget:
    """Retries of one channel: at most `share` of the calls of the last 10 seconds, and `floor`.

    It is kept by whole seconds, so that what counts is between 9 and 10 seconds old at most.
    """

    def __init__(self, share: float, floor: int, now: Callable[[], float]) -> None:
        self._share = share
        self._floor = floor
        self._now = now
        self._second = int(now())
        self._calls = [0] * WINDOW
        self._retries = [0] * WINDOW

    def called(self, moment: float) -> None:
        """A call began at `moment`, monotonic seconds."""
        second = int(moment)
        if second != self._second:
            self._move(second)
        self._calls[self._second % WINDOW] += 1

    def take(self) -> bool:
        """Whether there may be one more retry now; it is then counted."""
        self._move(int(self._now()))
        if sum(self._retries) + 1 > self._share * sum(self._calls) + self._floor:
            return False
        self._retries[self._second % WINDOW] += 1
        return True

    def _move(self, second: int) -> None:
        for passed in range(self._second + 1, min(second, self._second + WINDOW) + 1):
            self._calls[passed % WINDOW] = self._retries[passed % WINDOW] = 0
        self._second = max(self._second, second)


class Retries:
    """The retries of one channel. `random` gives floats from 0 to 1; `counted` is called for each retry with what became
    of the idea: `made`, or why it was not, `budget` or `deadline`."""

    def __init__(
        self,
        settings: config.Retry,
        clock: Clock,
        random: Callable[[], float],
        counted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._most = settings.attempts
        self._base = float(settings.backoff)
        self._clock = clock
        self._random = random
        self._counted = counted
        self._budget = RetryBudget(settings.share, settings.floor, clock.monotonic)
        self.called = self._budget.called

    def worthwhile(self, failure: ApiError) -> bool:
        """Whether another attempt may end otherwise, and is wanted: it was unavailable, or exhausted and says when it is
        not. Not when our own breaker refused, nor when the peer says that nobody should."""
        if not self._most or isinstance(failure, BreakerOpen):
            return False
        said = failure.pushback
        if said is not None and said < 0:
            return False
        return failure.code is Code.UNAVAILABLE or (failure.code is Code.RESOURCE_EXHAUSTED and said is not None)

    async def again(self, first: ApiError, attempt: Callable[[int], Awaitable[_T]], until: float) -> _T:
        """What `attempt(n)`, n from 1, answers after `first` has been found `worthwhile`. None begins behind `until`
        (monotonic). Raises what the last attempt raised; it tells the tiers above not to try again in their turn."""
        made = 0

        async def once() -> _T:
            nonlocal made
            if not made:
                made = 1
                raise first
            made += 1
            return await attempt(made - 1)

        try:
            return await tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(self._repeatable),
                wait=self._wait,
                stop=lambda state: self._stop(state, until),
                sleep=self._clock.sleep,
                reraise=True,
            )(once)
        except ApiError as last:
            last.pushback = -1.0
            raise

    def _repeatable(self, problem: BaseException) -> bool:
        return isinstance(problem, ApiError) and self.worthwhile(problem)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        failure = None if state.outcome is None else state.outcome.exception()
        if isinstance(failure, ApiError) and failure.pushback is not None:
            return failure.pushback
        return self._random() * self._base * 2.0 ** min(state.attempt_number - 1, _DOUBLINGS)

    def _stop(self, state: tenacity.RetryCallState, until: float) -> bool:
        if state.attempt_number > self._most:
            return True
        if self._clock.monotonic() + state.upcoming_sleep >= until:
            self._counted("deadline")
            return True
        if not self._budget.take():
            self._counted("budget")
            return True
        self._counted("made")
        return False
