"""One logical call as at most a few attempts: full jitter between them, and none that could not end in time.

The first attempt costs nothing: tenacity is built only after it has failed. Source of full jitter: "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from chassis import context
from chassis.clock import Clock

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: the wait before retry n is random below base · 2ⁿ, and below cap."""

    base: float = 0.02
    cap: float = 0.5


class Retrier:
    """Repeats an operation that failed in a way that another attempt may not. `random` gives floats from 0 to 1.

    What is done for a call that the tier above sends for a second time is tried once: it would multiply.
    """

    def __init__(self, clock: Clock, random: Callable[[], float], retries: int, backoff: Backoff | None = None) -> None:
        self._clock = clock
        self._random = random
        self._retries = retries
        self._backoff = backoff or Backoff()

    async def run(
        self, attempt: Callable[[], Awaitable[_T]], repeatable: Callable[[BaseException], bool], deadline: float
    ) -> _T:
        """The answer of `attempt`. Raises what its last attempt raised; none begins behind `deadline` (monotonic)."""
        try:
            return await attempt()
        except Exception as failure:  # which failures these are is for `repeatable` to say; all are raised again
            if not self._retries or _repeated() or not repeatable(failure) or not await self._waited(0, deadline):
                raise

        def stop(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= self._retries or self._clock.monotonic() + state.upcoming_sleep >= deadline

        again = tenacity.AsyncRetrying(
            stop=stop,
            wait=lambda state: self._pause(state.attempt_number),
            retry=tenacity.retry_if_exception(repeatable),
            sleep=self._clock.sleep,
            reraise=True,
        )

        async def once() -> _T:  # tenacity awaits what is declared to be asynchronous, and nothing else
            return await attempt()

        return await again(once)

    def _pause(self, retry: int) -> float:
        return self._random() * min(self._backoff.cap, self._backoff.base * 2.0**retry)

    async def _waited(self, retry: int, deadline: float) -> bool:
        pause = self._pause(retry)
        if self._clock.monotonic() + pause >= deadline:
            return False
        await self._clock.sleep(pause)
        return True


def _repeated() -> bool:
    call = context.current()
    return call is not None and call.repeated
