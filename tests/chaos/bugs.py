"""Bugs that a process under test may be given: each breaks one promise, and the suite must say which.

python -m tests.chaos --store firestore --seconds 60 --bug untold
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

_held: list[object] = []


def plant(name: str) -> None:
    """Raises KeyError for a name that is none."""
    if name:
        BUGS[name]()


def untold() -> None:
    """Invalidations say that they are done, and do nothing."""
    from chassis.cache.readthrough import LeaseReadThrough  # noqa: PLC0415 - only in the process that has the bug

    async def invalidate(self: LeaseReadThrough, *keys: str) -> bool:
        return True

    LeaseReadThrough.invalidate = invalidate  # type: ignore[method-assign]


def insistent() -> None:
    """Calls are repeated up to eight times, without a budget, and no breaker ends it."""
    from chassis.resilience import retry  # noqa: PLC0415 - as above
    from chassis.resilience.breaker import AlwaysAdmit, Breaker  # noqa: PLC0415 - as above

    made = retry.Retries.__init__

    def init(self: retry.Retries, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        if self._most:
            self._most = 8

    Breaker.admit = lambda _: AlwaysAdmit().admit()  # type: ignore[method-assign, assignment]
    retry.Retries.__init__ = init  # type: ignore[method-assign]
    retry.RetryBudget.take = lambda _: True  # type: ignore[method-assign, assignment]


def hasty() -> None:
    """An open breaker lets the next call through, whenever it comes."""
    from chassis.resilience.breaker import Breaker, Permit, State  # noqa: PLC0415 - as above

    admit = Breaker.admit

    def at_once(self: Breaker) -> Permit:
        if self.state is State.OPEN:
            self._since -= self.budget.half_open_after
        return admit(self)

    Breaker.admit = at_once  # type: ignore[method-assign]


def generous() -> None:
    """Nobody is refused for having asked too often."""
    from chassis.resilience.limits.limiter import Limiter  # noqa: PLC0415 - as above

    Limiter.of = lambda _self, _version: lambda _tenant, _now: None  # type: ignore[method-assign, assignment]


def forgetful() -> None:
    """The relay takes every twentieth side effect for delivered."""
    from chassis.outbox.delivery import Delivery, Outcome  # noqa: PLC0415 - as above

    deliver = Delivery.deliver
    count = 0

    async def forgetting(self: Delivery, records: Iterable[Any]) -> Outcome:
        nonlocal count
        kept: list[Any] = []
        lost: list[Any] = []
        for record in records:
            count += 1
            (lost if count % 20 == 0 else kept).append(record)
        outcome = await deliver(self, kept)
        outcome.acknowledged.extend(lost)
        return outcome

    Delivery.deliver = forgetting  # type: ignore[method-assign]


def nosy() -> None:
    """Devices are cached by their id alone."""
    from chassis.cache.readthrough import LeaseReadThrough  # noqa: PLC0415 - as above

    get = LeaseReadThrough.get

    async def by_id(self: LeaseReadThrough, key: str, load: Any) -> bytes | None:
        return await get(self, "any/" + key.rpartition("/")[2], load)

    LeaseReadThrough.get = by_id  # type: ignore[method-assign]


def leaky() -> None:
    """Every call leaves a task behind."""
    from chassis.interceptors.admission import Progress  # noqa: PLC0415 - as above

    made = Progress.__init__

    def init(self: Progress) -> None:
        made(self)
        _held.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))

    Progress.__init__ = init  # type: ignore[method-assign]


BUGS: Final[Mapping[str, Callable[[], None]]] = MappingProxyType(
    {each.__name__: each for each in (untold, insistent, hasty, generous, forgetful, nosy, leaky)}
)
