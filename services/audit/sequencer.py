"""Giving pending entries their places in the log, one batch a commit.

Two sequencers cannot fork the log: a batch is created under the sequence it begins with, which is where the newest batch
ends, and each arrival in it changes at the version that was read. Who was slower meets one of both, reads again and goes
on; so does who was paused, whose answer was lost, and who died: there is nothing half done. There is no head that all
would have to write, and no lock that anything depends on.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import structlog

from chassis.cache.together import together
from chassis.clock import Clock
from chassis.config import Audit
from chassis.errors import ApiError
from chassis.store.port import DocumentStore, PreconditionFailed, Write
from chassis.telemetry.metrics import Metrics
from services.audit.edge import cut
from services.audit.lease import Turns
from services.audit.pacing import Bell
from services.audit.placements import Placements
from services.audit.records import (
    Batch,
    Pending,
    batched,
    begun,
    lanes_behind,
    pending_of,
    sequenced,
    tenant_of,
    tiled,
    unsigned,
    waiting,
)
from services.audit.trees import Trees

MOST: Final = 400
"""Entries of one commit: each may be an arrival, and there are batch, tiles and marks beside them, of 500 writes in all."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks for what other processes have left, at least."""
CONFLICTS: Final = 20
"""How often a round begins anew because others were faster: they have then done its work."""

_PAGE: Final = 100
_TOGETHER: Final = 8
_BACKOFF: Final = 0.02


class Sequencer:
    """`random` draws from [0, 1)."""

    def __init__(
        self,
        documents: DocumentStore,
        trees: Trees,
        placements: Placements,
        turns: Turns,
        settings: Audit,
        clock: Clock,
        random: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._documents = documents
        self._trees = trees
        self._placements = placements
        self._turns = turns
        self._interval = float(settings.sequence_interval)
        self._batch = min(settings.sequence_batch, MOST)
        self._clock = clock
        self._random = random
        self._bell = Bell(clock)
        self._come: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sequenced = metrics.counter("bas_audit_sequenced", "Entries that were given their place in the log.")
        self._batches = metrics.counter("bas_audit_batches", "Commits that gave entries their places.")
        self._conflicts = metrics.counter("bas_audit_conflicts", "Batches that another process had made already.")
        self._failures = metrics.counter(
            "bas_audit_failures", "Rounds of a loop that were cut short.", ("loop", "reason")
        )
        self._log = structlog.get_logger("audit.sequencer")

    def arrived(self, tenant: str, count: int) -> None:
        """Entries were committed by this process. No I/O."""
        come = self._come[tenant] = self._come.get(tenant, 0) + count
        if come >= self._batch:
            self._bell.ring()

    async def run(self) -> None:
        """Sequence what comes, until cancelled; a store that is away costs one round."""
        looked = float("-inf")
        while True:
            come, self._come = self._come, {}
            failed = await self._round(come)
            if self._clock.monotonic() - looked >= max(LOOK_EVERY, self._interval):
                looked = self._clock.monotonic()
                await self._look()
            for tenant in failed:
                self._come.setdefault(tenant, 0)
            await self._bell.wait(self._interval)

    async def drain(self, tenant: str) -> int:
        """Sequence all that waits of the tenant; how many entries that were. Raises what the store raises."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            return await self._drain(tenant)

    async def left(self) -> int:
        """Sequence all that waits, of all tenants, by whomever it was appended; how many entries that were."""
        count, tenant = 0, ""
        while found := await self._documents.query(lanes_behind(tenant)):
            tenant = tenant_of(found[0])
            if not await self._turns.taken(tenant):
                count += await self.drain(tenant)
        return count

    async def _round(self, tenants: Iterable[str]) -> list[str]:
        """Those whose turn it is; the tenants that are still to be done."""
        wanted = list(tenants)
        left: list[str] = []
        for start in range(0, len(wanted), _TOGETHER):
            some = wanted[start : start + _TOGETHER]
            done = await together(self._one(tenant) for tenant in some)
            left += [tenant for tenant, ended in zip(some, done, strict=True) if not ended]
        return left

    async def _one(self, tenant: str) -> bool:
        if await self._turns.taken(tenant):
            return False
        try:
            await self.drain(tenant)
        except ApiError as failure:
            self._failed(failure)
            return False
        return True

    async def _look(self) -> None:
        try:
            await self.left()
        except ApiError as failure:
            self._failed(failure)

    def _failed(self, failure: ApiError) -> None:
        self._failures.labels("sequencer", failure.reason).inc()
        self._log.warning("round cut short", reason=failure.reason)

    async def _drain(self, tenant: str) -> int:
        count = conflicts = 0
        known: list[Pending] = []
        more = True
        while True:
            while more and sum(len(each.ids) for each in known) < self._batch:
                after = known[-1] if known else None
                page = await self._documents.query(waiting(tenant, after, _PAGE))
                known += map(pending_of, page)
                more = len(page) == _PAGE
            if not known:
                return count
            some = self._fitting(known)
            try:
                count += await self._commit(tenant, some)
            except PreconditionFailed:
                self._conflicts.inc()
                conflicts += 1
                if conflicts == CONFLICTS:
                    return count
                known, more = [], True
                await self._clock.sleep(_BACKOFF * conflicts * self._random())
                await self._trees.newest(tenant)
            else:
                del known[: len(some)]

    def _fitting(self, known: Sequence[Pending]) -> list[Pending]:
        """Arrivals for one batch, in their order: an arrival is never split."""
        some, count = list(known[:1]), len(known[0].ids)
        for each in known[1:]:
            count += len(each.ids)
            if count > self._batch:
                break
            some.append(each)
        return some

    async def _commit(self, tenant: str, arrivals: Sequence[Pending]) -> int:
        """One batch. Raises PreconditionFailed when somebody was faster."""
        edge = await self._trees.edge(tenant)
        leaves = b"".join(each.leaves for each in arrivals)
        batch = Batch(edge.size, tuple(entry_id for each in arrivals for entry_id in each.ids), leaves)
        grown, tiles = edge.extended(cut(leaves))
        now = self._clock.now()
        writes: list[Write] = [batched(tenant, batch, now), unsigned(tenant, batch, now)]
        placed: dict[str, int] = {}
        first = batch.first
        for each in arrivals:
            writes.append(sequenced(each, first))
            placed[each.id] = first
            first += len(each.ids)
        writes += [tiled(tenant, tile) for tile in tiles]
        if batch.first == 0:
            writes.append(begun(tenant))
        await self._documents.commit(writes)
        self._trees.grown(tenant, grown)
        for arrival, first in placed.items():
            self._placements.place(arrival, first)
        self._sequenced.inc(len(batch.ids))
        self._batches.inc()
        return len(batch.ids)
