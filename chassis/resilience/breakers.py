"""The breakers of a process, made, named and listened to by purgatory.

purgatory 3.0.1 keeps its own rules in its contexts: it counts failures in a row and without a window, lets any number of
probes through, lets a success from before it opened close it, counts cancellations as failures, and raises one exception
object over and over. Its factory, its decorator and its hooks know nothing of that: here they are given contexts that
each stand for one call, before a `Breaker`. What is called often asks the `Breaker` itself: purgatory's way to it takes
several times as long.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

import structlog
from purgatory import AsyncAbstractUnitOfWork, AsyncCircuitBreakerFactory, CircuitBreakerCreated, ContextChanged, Event
from purgatory.domain.messages import Message
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED, Context, ExcludeType
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker
from purgatory.service._async.repository import AsyncAbstractRepository

from chassis import config
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.resilience.breaker import Breaker, BreakerOpen, Permit, State
from chassis.telemetry.metrics import Metrics

_NAMES: Final[dict[State, Literal["opened", "closed", "half-opened"]]] = {
    State.CLOSED: CLOSED,
    State.HALF_OPEN: HALF_OPENED,
    State.OPEN: OPENED,
}
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


def verdict(problem: BaseException) -> bool | None:
    """What an operation's failure says of who was asked, where nothing more is known of either: False for unavailable,
    late, and what is no `ApiError`; None for what the caller did wrong and for a cancellation."""
    if isinstance(problem, ApiError):
        return False if problem.code in _AWAY else None
    return False if isinstance(problem, Exception) and not isinstance(problem, asyncio.CancelledError) else None


class Breakers:
    """Makes each breaker once; asking again by the same name returns the one that exists.

    `factory` is purgatory's, for its decorator (`@factory("reports")`) and further listeners, who are told
    `circuit_breaker_created` and `state_changed`. For each transition there is one log line and one step of
    `bas_breaker_transitions_total{dependency,state}`; `bas_breaker_state{dependency}` is 0 closed, 1 half-open, 2 open.
    An open breaker stays so until somebody asks it after its time.
    """

    def __init__(self, budget: config.Breaker, clock: Clock, metrics: Metrics) -> None:
        self._log = structlog.get_logger("bas.breaker")
        self._state = metrics.gauge(
            "bas_breaker_state", "State of a breaker: 0 closed, 1 half-open, 2 open.", ("dependency",)
        )
        self._transitions = metrics.counter(
            "bas_breaker_transitions", "Changes of a breaker, by its new state.", ("dependency", "state")
        )
        self._made = _Made(budget, clock, self._tell)
        self.factory = _Factory(budget.failures, budget.half_open_after, uow=_UnitOfWork(self._made))
        self.factory.add_listener(self._listen)

    def __call__(self, dependency: str, refusal: type[BreakerOpen] = BreakerOpen) -> Breaker:
        """The breaker of a dependency. `refusal` is what it raises: a kind of `BreakerOpen` that is also the error by
        which users of the dependency know it to be away."""
        if dependency not in self._made.breakers:
            self._made.refusals[dependency] = refusal
            _at_once(self.factory.get_breaker(dependency))
        return self._made.breakers[dependency]

    def _tell(self, breaker: Breaker) -> None:
        event = ContextChanged(breaker.dependency, _NAMES[breaker.state], breaker.opened_at)
        for listener in tuple(self.factory.listeners):
            listener(breaker.dependency, "state_changed", event)

    def _listen(self, dependency: str, _what: str, event: Event) -> None:
        if isinstance(event, CircuitBreakerCreated):
            self._state.labels(dependency).set(State.CLOSED.value)
        elif isinstance(event, ContextChanged):
            state = next(state for state, name in _NAMES.items() if name == event.state)
            self._state.labels(dependency).set(state.value)
            self._transitions.labels(dependency, state.name.lower()).inc()
            say = self._log.warning if state is State.OPEN else self._log.info
            say(f"breaker {state.name.lower().replace('_', '-')}", dependency=dependency)


class _Factory(AsyncCircuitBreakerFactory):
    """purgatory's answers the first request for a name with the context that it has registered, not with the one that
    the repository keeps."""

    async def get_breaker(
        self, circuit: str, threshold: int | None = None, ttl: float | None = None, exclude: ExcludeType | None = None
    ) -> AsyncCircuitBreaker:
        if await self.uow.contexts.get(circuit) is None:
            await super().get_breaker(circuit, threshold, ttl)
        return await super().get_breaker(circuit, threshold, ttl, exclude)


class _Made:
    """The breakers that there are, by name."""

    def __init__(self, budget: config.Breaker, clock: Clock, tell: Callable[[Breaker], None]) -> None:
        self.breakers: dict[str, Breaker] = {}
        self.refusals: dict[str, type[BreakerOpen]] = {}
        self._budget = budget
        self._clock = clock
        self._tell = tell

    def make(self, dependency: str, failures: int, half_open_after: float) -> None:
        budget = config.Breaker(
            failures=failures,
            window=self._budget.window,
            half_open_after=config.Seconds(half_open_after),
            probes=self._budget.probes,
            share=self._budget.share,
        )
        self.breakers[dependency] = Breaker(
            dependency,
            budget,
            self._clock,
            changed=lambda _: self._tell(self.breakers[dependency]),
            refusal=self.refusals.get(dependency, BreakerOpen),
        )


class _Repository(AsyncAbstractRepository):
    def __init__(self, made: _Made) -> None:
        self.messages: list[Message] = []
        self._made = made

    async def get(self, name: str) -> Context | None:
        breaker = self._made.breakers.get(name)
        return None if breaker is None else _OneCall(breaker)

    async def register(self, context: Context) -> None:
        self._made.make(context.name, context.threshold, context.ttl)

    # What follows has happened by the time it is told.

    async def update_state(self, name: str, state: str, opened_at: float | None) -> None: ...

    async def inc_failures(self, name: str, failure_count: int) -> None: ...

    async def reset_failure(self, name: str) -> None: ...


class _UnitOfWork(AsyncAbstractUnitOfWork):
    def __init__(self, made: _Made) -> None:
        self.contexts = _Repository(made)

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class _OneCall(Context):
    """One operation behind a breaker, as purgatory enters and leaves it."""

    def __init__(self, breaker: Breaker) -> None:
        super().__init__(breaker.dependency, breaker.budget.failures, breaker.budget.half_open_after)
        self._breaker = breaker
        self._settle: Permit | None = None

    @property
    def state(self) -> Literal["opened", "closed", "half-opened"]:
        return _NAMES[self._breaker.state]

    def handle_new_request(self) -> None:
        self._settle = self._breaker.admit()

    def handle_exception(self, exc: BaseException) -> None:
        self._end(None if self._excluded(exc) else verdict(exc))

    def handle_end_request(self) -> None:
        self._end(True)

    def _end(self, answered: bool | None) -> None:  # noqa: FBT001 - as a Permit
        if self._settle is not None:
            self._settle(answered)

    def _excluded(self, problem: BaseException) -> bool:
        for each in self.exclude_list:
            kind, applies = each if isinstance(each, tuple) else (each, None)
            if isinstance(problem, kind):
                return applies is None or bool(applies(problem))
        return False


def _at_once(making: Coroutine[Any, Any, object]) -> None:
    """Run to its end what awaits nothing but memory."""
    try:
        making.send(None)
    except StopIteration:
        return
    making.close()
    raise RuntimeError("purgatory's factory waits for something")
