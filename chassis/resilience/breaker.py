"""One circuit breaker: closed while a dependency answers, open while it does not, half-open to find out.

It counts failures within a rolling window, and not in a row: a dependency that fails four times of five is not well.
Every state is a generation of its own, and what a call of an older one has to tell is not heard. Of two results it knows
what they say, and of the third that it says nothing: True the dependency answered, False it failed, None neither (the
caller was wrong, has left, or this process was too busy to hear the answer).
Source of the pattern: Nygard, "Release It!", 2007.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol, TypeAlias

from chassis import config
from chassis.clock import Clock
from chassis.errors import ApiError, Code

SOON: Final = 1.0
"""Seconds after which to come back while probes are under way: they decide, and nobody knows when."""

Permit: TypeAlias = Callable[[bool | None], None]
"""Called once when the operation has ended: True it was answered, False the dependency failed, None neither."""


class State(Enum):
    """Values are those of the gauge `bas_breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerOpen(ApiError):
    """The operation was not tried. `retry_after` is the time until one is. A new one for each refusal: an exception
    that is raised again keeps the frames of all that raised it."""

    def __init__(self, dependency: str, retry_after: float) -> None:
        # Named, as a dependency's own error may be the second base: for who catches that, it is away.
        ApiError.__init__(
            self,
            Code.UNAVAILABLE,
            "BREAKER_OPEN",
            f"The {dependency} has failed too often, and is given time to recover.",
            metadata={"dependency": dependency},
            retry_after=retry_after,
        )


class Guard(Protocol):
    """What decides whether an operation is tried at all."""

    def admit(self) -> Permit:
        """The permit of one operation. Raises BreakerOpen when it must not be tried."""
        ...


class AlwaysAdmit:
    """No breaker."""

    def admit(self) -> Permit:
        return _unheard


def no_breaker(_dependency: str) -> Guard:
    """For tests, and what needs none."""
    return AlwaysAdmit()


class Breaker:
    """The guard of one dependency, in one process and on one event loop. A call that finds it closed costs two calls and
    an addition.

    It opens at `budget.failures` failures within `budget.window`, if they are at least `budget.share` of the calls that
    were answered or failed from the first of them on. It admits again `budget.half_open_after` later, `budget.probes`
    at a time; the first that is answered closes it, the first that fails opens it. A probe of which nothing is heard for
    as long is given up. `changed` is called with each new state; `refusal` makes the error of who is not admitted.
    """

    def __init__(
        self,
        dependency: str,
        budget: config.Breaker,
        clock: Clock,
        *,
        changed: Callable[[State], None] = lambda _: None,
        refusal: Callable[[str, float], BreakerOpen] = BreakerOpen,
    ) -> None:
        self.dependency = dependency
        self.budget = budget
        self._now = clock.monotonic
        self._changed = changed
        self._refusal = refusal
        self._generation = 0
        self._state = State.CLOSED
        self._since = self._now()
        self._probing = 0
        self._probed = 0.0
        self._closed = self._permits_of_closed()

    @property
    def state(self) -> State:
        return self._state

    @property
    def opened_at(self) -> float | None:
        """Monotonic seconds; None unless it is open."""
        return self._since if self._state is State.OPEN else None

    def admit(self) -> Permit:
        if self._state is State.CLOSED:
            return self._closed
        now = self._now()
        if self._state is State.OPEN:
            left = self._since + self.budget.half_open_after - now
            if left > 0:
                raise self._refusal(self.dependency, left)
            self._enter(State.HALF_OPEN)
        elif self._probing >= self.budget.probes:
            if now - self._probed < self.budget.half_open_after:
                raise self._refusal(self.dependency, min(SOON, self.budget.half_open_after))
            self._generation += 1
            self._probing = 0
        self._probing += 1
        self._probed = now
        return self._probe()

    def look_again(self) -> None:
        """The dependency has been heard of by other means, such as a connection that was made again: if this is open, the
        next call is a probe already. It is for the probe to close it."""
        if self._state is State.OPEN:
            self._since = min(self._since, self._now() - self.budget.half_open_after)

    def _permits_of_closed(self) -> Permit:
        """The permit of every call of this generation: it belongs to none of them, so that a call makes nothing."""
        budget, now, generation = self.budget, self._now, self._generation
        # Each with what had been answered before: the oldest of the last few says how long they took, and among how many.
        failures: deque[tuple[float, int]] = deque(maxlen=budget.failures)
        answers = 0

        def settle(answered: bool | None) -> None:  # noqa: FBT001 - the shape of a Permit
            nonlocal answers
            if answered:
                answers += 1
            elif answered is False and generation == self._generation:
                moment = now()
                failures.append((moment, answers))
                first, before = failures[0]
                if len(failures) < budget.failures or moment - first > budget.window:
                    return
                if len(failures) >= budget.share * (len(failures) + answers - before):
                    self._enter(State.OPEN)

        return settle

    def _probe(self) -> Permit:
        generation, pending = self._generation, True

        def settle(answered: bool | None) -> None:  # noqa: FBT001 - the shape of a Permit
            nonlocal pending
            if not pending or generation != self._generation:
                return
            pending = False
            if answered is None:
                self._probing -= 1
            else:
                self._enter(State.CLOSED if answered else State.OPEN)

        return settle

    def _enter(self, state: State) -> None:
        self._generation += 1
        self._state = state
        self._since = self._now()
        self._probing = 0
        if state is State.CLOSED:
            self._closed = self._permits_of_closed()
        self._changed(state)


def _unheard(_: bool | None) -> None:  # noqa: FBT001 - the shape of a Permit
    pass
