"""Removing sessions that have ended, in bounded batches; any number of replicas may do it at once.

What is due is found through the lookup documents, which are ordered by when their session may be removed: all tenants'
by one query. A session that is used lives on without its lookup being written; it is then found too early, and its
lookup moved. Every removal is conditional on the version that was judged, so a session that is used meanwhile stays.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.resilience.deadline import remaining
from chassis.store.port import (
    Delete,
    Document,
    DocumentStore,
    Filter,
    Key,
    Op,
    Order,
    PreconditionFailed,
    Query,
    Update,
    Value,
    Write,
)
from chassis.telemetry.metrics import Metrics
from services.sessions import effects
from services.sessions import session as rules
from services.sessions.filters import LOOKUP, REMOVABLE
from services.sessions.records import REGISTRY, Stored, lookup_of, session_key, slot_key, stored
from services.sessions.store import SessionStore, Times

TOGETHER: Final = 50
"""Sessions removed by one commit: of each its document, its lookup, its slot, and an event."""

MOST: Final = 10_000

LAST_BATCH: Final = 1.0
"""Seconds left of a call below which it begins no further batch, and answers that there is more."""

JUMP: Final = 60.0
"""Seconds by which the wall clock may run ahead of the monotonic one between two rounds. Beyond that it was set, and
nothing is removed in that round: to think a session over is undone when the clock is set right, to remove it is not."""


@dataclass(frozen=True, slots=True)
class Removed:
    count: int
    more: bool


class Cleanup:
    def __init__(
        self, store: SessionStore, clock: Clock, times: Times, interval: float, batch: int, metrics: Metrics
    ) -> None:
        self._store = store
        self._documents: DocumentStore = store.documents
        self._clock = clock
        self._times = times
        self._interval = interval
        self._batch = batch
        self._removed = metrics.counter("bas_sessions_removed", "Ended sessions removed by clean-ups.")
        self._failures = metrics.counter("bas_sessions_cleanup_failures", "Clean-ups that were cut short.", ("reason",))
        self._log = structlog.get_logger("sessions.cleanup")

    async def run(self) -> None:
        """Clean up until cancelled; a store or cache that is away costs one round."""
        ahead = self._ahead()
        while True:
            await self._clock.sleep(self._interval)
            before, ahead = ahead, self._ahead()
            if ahead - before > JUMP:
                self._failures.labels("CLOCK_JUMPED").inc()
                self._log.warning("clean-up left out: the clock was set", seconds=round(ahead - before))
                continue
            try:
                await self._all()
            except ApiError as failure:
                self._failures.labels(failure.reason).inc()
                self._log.warning("clean-up cut short", reason=failure.reason)

    async def some(self, limit: int, tenant: str = "") -> Removed:
        """Remove at most `limit` sessions (0: the default), of one tenant or of all; fewer when time runs out. Raises what the store raises, and
        CACHE_UNAVAILABLE."""
        limit = min(limit or self._batch, MOST)
        count = looked = 0
        after: tuple[Value, ...] | None = None
        filters: tuple[Filter, ...] = (Filter(REMOVABLE, Op.LE, self._clock.now()),)
        if tenant:
            filters = (Filter("tenant", Op.EQ, tenant), *filters)
        while count < limit and looked < max(limit, self._batch) and self._in_time():
            step = min(TOGETHER, limit - count)
            due = await self._documents.query(Query(REGISTRY, LOOKUP, filters, (Order(REMOVABLE),), after, step))
            count += await self._work_off(due)
            looked += len(due)
            if len(due) < step:
                return Removed(count, more=False)
            after = (due[-1].fields[REMOVABLE], due[-1].key.id)
        return Removed(count, more=True)

    async def _all(self) -> None:
        for _ in range(MOST // self._batch):
            if not (await self.some(self._batch)).more:
                return

    async def _work_off(self, lookups: Sequence[Document]) -> int:
        keys = [session_key(str(lookup.fields["tenant"]), lookup.key.id) for lookup in lookups]
        found = await self._store.read_many(keys)
        now = self._clock.now()
        over: list[Stored] = []
        early: list[Write] = []
        for lookup, document in zip(lookups, found, strict=True):
            if document is None:
                early.append(Delete(lookup.key, version=lookup.version))
                continue
            held = stored(document)
            if rules.removable_at(held.session, self._times.revoked_kept) <= now:
                over.append(held)
            else:
                moved = lookup_of(held, self._times.revoked_kept)
                early.append(Update(lookup.key, moved, version=lookup.version))
        for write in early:
            await self._tolerant(write)
        return await self._remove(over, now)

    async def _remove(self, sessions: Sequence[Stored], now: datetime) -> int:
        if not sessions:
            return 0
        slots = await self._slots(sessions)
        expired = [told for each in sessions for told in effects.removed(each.tenant, each.session)]
        writes = [write for each in sessions for write in _removal(each, slots.get(each.session.session_id))]
        try:
            await self._store.fenced([each.session.session_id for each in sessions], writes, expired)
        except PreconditionFailed:
            if len(sessions) == 1:
                return 0  # used, revoked or removed meanwhile
            return sum([await self._remove([each], now) for each in sessions])
        self._removed.inc(len(sessions))
        return len(sessions)

    async def _slots(self, sessions: Sequence[Stored]) -> dict[str, Document]:
        """Session id → its slot, for those that still have one."""
        keys: list[Key] = [
            slot_key(each.tenant, each.session.user_id, each.slot) for each in sessions if each.slot is not None
        ]
        found = await self._store.read_many(list(dict.fromkeys(keys)))
        return {str(slot.fields["session_id"]): slot for slot in found if slot is not None}

    async def _tolerant(self, write: Write) -> None:
        with suppress(PreconditionFailed):  # another replica was faster
            await self._documents.commit([write])

    def _in_time(self) -> bool:
        """Whether there is time for one more batch, if somebody waits for the answer."""
        left = remaining(self._clock)
        return left is None or left > LAST_BATCH

    def _ahead(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()


def _removal(held: Stored, slot: Document | None) -> list[Write]:
    """The slot is that session's, or none."""
    writes: list[Write] = [
        Delete(held.key, version=held.version),
        Delete(Key(REGISTRY, LOOKUP, held.session.session_id)),
    ]
    if slot is not None:
        writes.append(Delete(slot.key, version=slot.version))
    return writes
