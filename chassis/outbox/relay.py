"""The relay: delivers what is pending, oldest first within a key, and removes what was acknowledged.

One walk goes over all that is pending, lane by lane in pages, and jumps over what is not to be tried now. Delivery comes
before removal, so a process that dies in between, or another that is at the same records, only delivers twice; and as
nobody delivers a record before all older ones of its lane were acknowledged, or parked, whichever of two is first at the
consumer is in order. docs/outbox.md says more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.config import Outbox as Settings
from chassis.errors import ApiError
from chassis.outbox.backlog import Backlog
from chassis.outbox.blocks import Blocks
from chassis.outbox.delivery import Delivery
from chassis.outbox.gauges import Gauges
from chassis.outbox.port import Deliver
from chassis.outbox.records import EVERY, Record, behind_kind, behind_tenant, parked_fields
from chassis.store.port import Delete, DocumentStore, PreconditionFailed, Update
from chassis.telemetry.metrics import Metrics

PAGE: Final = 500
"""Records read, delivered to one tenant's consumer, and removed at once, at most: PublishEvents and a commit take that many."""
OTHERS: Final = timedelta(seconds=2)
"""Time that another process has for what it committed, before it is taken to be dead or too slow."""

_REASON: Final = 500

Retries = Callable[[], Awaitable[int]]
"""Makes parked records pending again that somebody asked for; how many."""


async def no_retries() -> int:
    return 0


class Relay:
    """Of one service's store. `by` is what the process calls itself in its own records."""

    def __init__(
        self,
        documents: DocumentStore,
        delivers: Mapping[str, Deliver],
        clock: Clock,
        settings: Settings,
        metrics: Metrics,
        *,
        by: str,
        random: Callable[[], float],
        retries: Retries = no_retries,
    ) -> None:
        self._documents = documents
        self._kinds = tuple(sorted(delivers))
        self._clock = clock
        self._settings = settings
        self._by = by
        self._random = random
        self._retries = retries
        self._backlog = Backlog(documents, min(settings.batch, PAGE))
        self._blocks = Blocks(clock, random, settings.longest_wait)
        self._gauges = Gauges(documents, metrics, clock)
        self._delivery = Delivery(delivers, self._blocks, self._gauges, clock, settings.attempts)
        self._woken = asyncio.Event()
        self._log = structlog.get_logger("outbox.relay")

    def wake(self) -> None:
        """Something was committed. No I/O."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled. A store that is away is tried again, however long it takes."""
        away = Blocks(self._clock, self._random, self._settings.longest_wait)
        look = 0.0
        while True:
            self._woken.clear()
            try:
                if self._clock.monotonic() >= look:
                    look = self._clock.monotonic() + self._settings.poll_interval * (0.5 + self._random())
                    if await self._retries():
                        self._gauges.parked()
                await self.walk()
            except ApiError as failure:
                self._log.warning("outbox not looked at", reason=failure.reason)
                away.fail("store", failure)
                await self._clock.sleep(away.next() or 0.0)
                continue
            away.clear("store")
            waits = (look - self._clock.monotonic(), self._blocks.next())
            await self._pause(min(wait for wait in waits if wait is not None))

    async def walk(self) -> None:
        """Deliver what is pending and may be tried, until there is no more. Raises what the store raises."""
        self._gauges.begin()
        while await self._round():
            pass
        await self._gauges.refresh()

    async def _round(self) -> bool:
        """Once over all that is pending; whether a tenant or a key had more than its share of it and goes on."""
        again = False
        after = self._next(EVERY)
        while after is not None:
            page = await self._backlog.page(after)
            if page.long:
                again |= await self._long(page.long)
                after = self._next(page.long)
                continue
            done = await self._work_off(page.lanes)
            if not page.more:
                return again
            last = next(reversed(page.lanes))
            if done and behind_tenant(last) == behind_tenant(next(iter(page.lanes))):
                again = True  # there is more of that tenant: the others first
                last = behind_tenant(last)
            after = self._next(last)
        return again

    def _next(self, after: str) -> str | None:
        """Where to go on: behind `after`, and not in what is blocked or has no consumer. None: nowhere."""
        kind, _, rest = after.partition(".")
        if rest and kind not in self._kinds:
            after = behind_kind(kind)
        elif "." in rest and self._blocks.holds(behind_tenant(after)):
            after = behind_tenant(after)
        for kind in self._kinds:
            if after >= behind_kind(kind):
                continue
            if not self._blocks.holds(kind):
                return after
            self._gauges.passed(kind)
            after = behind_kind(kind)
        return None

    async def _long(self, lane: str) -> bool:
        """Work on a lane of more than a page; whether there is more of it to be done now."""
        if self._delivery.held(lane):
            self._gauges.passed(lane.partition(".")[0])
            return False
        async for records in self._backlog.oldest(lane):
            if await self._work_off({lane: records}) < len(records):
                return False
        return True

    async def _work_off(self, lanes: Mapping[str, Sequence[Record]]) -> int:
        """Deliver these lanes, and remove what was acknowledged; how many records are done with."""
        due: list[Record] = []
        for lane, records in lanes.items():
            if self._delivery.held(lane) or self._others(records):
                for record in records:
                    self._gauges.left(record.effect.kind, record.created)
            else:
                due += records
        outcome = await self._delivery.deliver(due)
        if outcome.acknowledged:
            await self._documents.commit([Delete(record.document) for record in outcome.acknowledged])
        for record, times, refusal in outcome.refused:
            await self._park(record, times, refusal)
        return len(outcome)

    def _others(self, records: Sequence[Record]) -> bool:
        """Whether another process has just committed them, and is about to deliver them."""
        now = self._clock.now()
        return all(each.by != self._by and timedelta(0) <= now - each.created < OTHERS for each in records)

    async def _park(self, record: Record, times: int, refusal: BaseException) -> None:
        effect = record.effect
        reason = (str(refusal) or type(refusal).__name__)[:_REASON]
        self._log.error("side effect parked", id=effect.id, kind=effect.kind, key=effect.key, reason=reason)
        fields = parked_fields(record, self._clock.now(), times, reason)
        with suppress(PreconditionFailed):  # another process was faster
            await self._documents.commit([Update(record.document, fields, version=record.version)])
            self._gauges.count(effect.kind, "parked")
        self._gauges.parked()

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until woken."""
        if self._woken.is_set() or seconds <= 0:
            await asyncio.sleep(0)
            return
        waiting = [asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
