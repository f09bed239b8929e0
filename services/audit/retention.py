"""Dropping what is too old: of an entry the hash of its leaf stays, and with it every proof."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.store.port import DocumentStore, Filter, Op, PreconditionFailed, Query
from chassis.telemetry.metrics import Metrics
from services.audit.records import ENTRIES, OLDEST, TIME, dropped, stored, tenants_behind

EVERY: Final = 60.0
"""Seconds between two sweeps, and no less than a tenth of the time that entries are kept."""
A_TENANT: Final = 2_000
"""Entries of one tenant that one sweep drops at most."""

_STEP: Final = 100
_PAGE: Final = 100


class Retention:
    def __init__(self, documents: DocumentStore, seconds: float, clock: Clock, metrics: Metrics) -> None:
        self._documents = documents
        self._seconds = seconds
        self._clock = clock
        self._dropped = metrics.counter("bas_audit_dropped", "Entries dropped to their hashes, being too old.")
        self._failures = metrics.counter(
            "bas_audit_failures", "Rounds of a loop that were cut short.", ("loop", "reason")
        )
        self._log = structlog.get_logger("audit.retention")

    async def run(self) -> None:
        """Sweep until cancelled; a store that is away costs one round."""
        while True:
            await self._clock.sleep(max(EVERY, self._seconds / 10) if self._seconds >= EVERY else self._seconds)
            try:
                await self.sweep()
            except ApiError as failure:
                self._failures.labels("retention", failure.reason).inc()
                self._log.warning("round cut short", reason=failure.reason)

    async def sweep(self) -> int:
        """Drop what is too old, some of each tenant; how many entries."""
        count = 0
        async for tenant in self._tenants():
            count += await self._sweep(tenant)
        return count

    async def _sweep(self, tenant: str) -> int:
        count = 0
        before = self._clock.now() - timedelta(seconds=self._seconds)
        while count < A_TENANT:
            query = Query(tenant, ENTRIES, (Filter(TIME, Op.LT, before),), OLDEST, limit=_STEP)
            found = await self._documents.query(query)
            if not found:
                return count
            try:
                await self._documents.commit([dropped(stored(document)) for document in found])
            except PreconditionFailed:
                continue  # one of them was erased, or dropped by another sweep, meanwhile
            count += len(found)
            self._dropped.inc(len(found))
        return count

    async def _tenants(self) -> AsyncIterator[str]:
        after = ""
        while True:
            page = await self._documents.query(tenants_behind(after, _PAGE))
            for document in page:
                yield document.key.id
            if len(page) < _PAGE:
                return
            after = page[-1].key.id
