"""The outbox of one service: effects as documents of its own store."""

from collections.abc import Callable, Iterable
from itertools import count

from chassis.clock import Clock
from chassis.outbox.port import Effect
from chassis.outbox.records import fields_of, key_of
from chassis.store.port import Create, Write


class CommittedOutbox:
    """The Outbox port. `by` is what the process calls itself. Until it is opened it makes no records."""

    def __init__(self, clock: Clock, by: str) -> None:
        self._clock = clock
        self._by = by
        self._numbers = count()
        self._kinds: frozenset[str] = frozenset()
        self._woken: Callable[[], None] = _nobody

    def open(self, kinds: Iterable[str], woken: Callable[[], None]) -> None:
        """`kinds` are those that are delivered here, which is known once the service is built; `woken` tells its relay."""
        self._kinds = frozenset(kinds)
        self._woken = woken

    def records(self, effects: Iterable[Effect]) -> list[Write]:
        now = self._clock.now()
        return [
            Create(key_of(effect.id), fields_of(effect, now, self._by, next(self._numbers)))
            for effect in effects
            if effect.kind in self._kinds
        ]

    def wake(self) -> None:
        self._woken()


def _nobody() -> None:
    pass
