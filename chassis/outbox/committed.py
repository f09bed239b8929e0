"""The outbox of one service: effects as documents of its own store."""

from collections.abc import Callable, Collection, Iterable
from itertools import count

from chassis.clock import Clock
from chassis.outbox.port import Effect
from chassis.outbox.records import fields_of, key_of
from chassis.store.port import Create, Write


class CommittedOutbox:
    """The Outbox port. `kinds` are those that this deployment delivers, `by` is the process, `woken` tells its relay."""

    def __init__(self, kinds: Collection[str], clock: Clock, by: str, woken: Callable[[], None]) -> None:
        self._kinds = frozenset(kinds)
        self._clock = clock
        self._by = by
        self._woken = woken
        self._numbers = count()

    def records(self, effects: Iterable[Effect]) -> list[Write]:
        now = self._clock.now()
        return [
            Create(key_of(effect.id), fields_of(effect, now, self._by, next(self._numbers)))
            for effect in effects
            if effect.kind in self._kinds
        ]

    def wake(self) -> None:
        self._woken()
