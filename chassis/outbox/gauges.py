"""What an operator sees of the outbox: how much is pending, since when, what was parked, and what became of the rest."""

from datetime import datetime
from typing import Final

from chassis.clock import Clock
from chassis.outbox.records import all_parked, all_pending
from chassis.store.port import DocumentStore
from chassis.telemetry.metrics import Metrics

EVERY: Final = 5.0
"""Seconds between two counts while something is left: they are reads, too."""
PARKED_EVERY: Final = 60.0
"""Seconds between two counts of what is parked: others park, and their operators retry, as well."""


class Gauges:
    """`bas_outbox_pending`, `bas_outbox_oldest_seconds`, `bas_outbox_parked`; `bas_outbox_effects` by kind and outcome."""

    def __init__(self, documents: DocumentStore, metrics: Metrics, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._pending = metrics.gauge("bas_outbox_pending", "Side effects committed and not delivered, a while ago.")
        self._parked = metrics.gauge("bas_outbox_parked", "Side effects that were refused and are tried no more.")
        oldest = metrics.gauge("bas_outbox_oldest_seconds", "Age of the oldest pending side effect that was seen.")
        oldest.set_function(self.oldest)
        self._effects = metrics.counter("bas_outbox_effects", "Tries of side effects by outcome.", ("kind", "outcome"))
        self._left: dict[str, datetime] = {}
        self._before: dict[str, datetime] = {}
        self._counted = self._counted_parked = float("-inf")

    def oldest(self) -> float:
        """Seconds since the oldest record that was seen and is still there was made; 0 when none is."""
        seen = [*self._left.values(), *self._before.values()]
        return max(0.0, (self._clock.now() - min(seen)).total_seconds()) if seen else 0.0

    def begin(self) -> None:
        """A walk begins: what it does not leave behind is delivered."""
        self._before, self._left = self._left, {}

    def left(self, kind: str, created: datetime) -> None:
        """A record that the walk leaves behind."""
        self._left[kind] = min(created, self._left.get(kind, created))

    def passed(self, kind: str) -> None:
        """The walk leaves records of that kind behind without looking at them: they are as they were."""
        if kind in self._before:
            self.left(kind, self._before[kind])

    def count(self, kind: str, outcome: str, number: int = 1) -> None:
        self._effects.labels(kind, outcome).inc(number)

    def parked(self) -> None:
        """Something was parked, or made pending again."""
        self._counted_parked = float("-inf")

    async def refresh(self) -> None:
        """A walk has ended. Raises what the store raises."""
        self._before = {}
        now = self._clock.monotonic()
        if not self._left:
            self._pending.set(0)
        elif now - self._counted >= EVERY:
            self._counted = now
            self._pending.set(await self._documents.count(all_pending()))
        if now - self._counted_parked >= PARKED_EVERY:
            self._counted_parked = now
            self._parked.set(await self._documents.count(all_parked()))
