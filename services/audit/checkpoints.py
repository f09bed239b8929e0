"""Signed statements of what the log holds, each made once and kept under the size of its tree."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog

from bas.audit.v2.audit_pb2 import Checkpoint
from chassis.clock import Clock
from chassis.config import Audit
from chassis.errors import ApiError, Code
from chassis.store.port import (
    Create,
    Delete,
    Document,
    DocumentExists,
    DocumentStore,
    Key,
    Order,
    Query,
    StoreCorrupt,
    Value,
)
from chassis.telemetry.metrics import Metrics
from services.audit.note import Signer
from services.audit.records import (
    CHECKPOINTS,
    tenant_of,
    unsigned_after,
    unsigned_behind,
    unsigned_of,
)
from services.audit.trees import Trees

LEAST_BETWEEN: Final = 1.0
"""Seconds between two checkpoints of a tenant that are made because somebody waits for them."""

_PAGE: Final = 300
_LONGEST_TICK: Final = 2.5


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it is kept."""

    size: int
    root: bytes
    note: str
    time: datetime


class Checkpoints:
    """`origin(tenant)` is the name of a tenant's log."""

    def __init__(
        self,
        documents: DocumentStore,
        trees: Trees,
        signer: Signer,
        origin: Callable[[str], str],
        settings: Audit,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._documents = documents
        self._trees = trees
        self._signer = signer
        self.origin = origin
        self._interval = float(settings.checkpoint_interval)
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._last: dict[str, float] = {}
        self._made = metrics.counter("bas_audit_checkpoints", "Checkpoints that were signed.")
        self._refused = metrics.counter("bas_audit_contradictions", "Trees that contradict their newest checkpoint.")
        self._failures = metrics.counter(
            "bas_audit_failures", "Rounds of a loop that were cut short.", ("loop", "reason")
        )
        self._log = structlog.get_logger("audit.checkpoints")

    async def newest(self, tenant: str) -> Signed | None:
        query = Query(tenant, CHECKPOINTS, order=(Order("size", descending=True),), limit=1)
        found = await self._documents.query(query)
        return _signed(found[0]) if found else None

    async def at(self, tenant: str, size: int) -> Signed | None:
        """The checkpoint of that size, if that tree was signed."""
        found = await self._documents.get(_key(tenant, size))
        return None if found is None else _signed(found)

    async def of(self, tenant: str, size: int) -> Signed | None:
        """The checkpoint of that size; the newest, when it is 0."""
        return await (self.at(tenant, size) if size else self.newest(tenant))

    def message(self, tenant: str, signed: Signed) -> Checkpoint:
        checkpoint = Checkpoint(
            origin=self.origin(tenant), tree_size=signed.size, root_hash=signed.root, note=signed.note
        )
        checkpoint.sign_time.FromDatetime(signed.time)
        return checkpoint

    def verifier_key(self, tenant: str) -> str:
        return self._signer.verifier_key(self.origin(tenant))

    async def sign(self, tenant: str) -> Signed | None:
        """The checkpoint of the tree as it is now; None when that is empty. Raises StoreCorrupt when the tree is not what
        was signed before: a log that contradicts itself is not signed."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            return await self._sign(tenant)

    async def hasten(self, tenant: str) -> None:
        """Sign for somebody who waits, but not too often."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            since = self._clock.monotonic() - self._last.get(tenant, float("-inf"))
            if since < LEAST_BETWEEN:
                await self._clock.sleep(LEAST_BETWEEN - since)
            await self._sign(tenant)
            self._last.pop(tenant, None)
            self._last[tenant] = self._clock.monotonic()
            if len(self._last) > _PAGE:
                self._last.pop(next(iter(self._last)))

    async def run(self) -> None:
        """Sign what is new, until cancelled; a store that is away costs one round."""
        while True:
            await self._clock.sleep(min(_LONGEST_TICK, self._interval / 4))
            try:
                await self.due()
            except ApiError as failure:
                self._failures.labels("checkpoints", failure.reason).inc()
                self._log.warning("round cut short", reason=failure.reason)

    async def due(self) -> int:
        """Sign the trees of all tenants whose oldest batch without a checkpoint is half an interval old; how many."""
        count, behind = 0, ""
        while found := await self._documents.query(unsigned_behind(behind, 1)):
            tenant = tenant_of(found[0])
            age = (self._clock.now() - _time(found[0])).total_seconds()
            # A batch of the future is one of before the clock was set back.
            if not 0 <= age < self._interval / 2:
                try:
                    await self.sign(tenant)
                    count += 1
                except StoreCorrupt as contradiction:
                    self._log.error("not signed", tenant=tenant, reason=contradiction.reason)
            behind = unsigned_after(tenant)
        return count

    async def _sign(self, tenant: str) -> Signed | None:
        edge = await self._trees.newest(tenant)
        if edge.size == 0:
            return None
        newest = await self.newest(tenant)
        signed = newest
        if newest is None or newest.size != edge.size:
            await self._check(tenant, newest)
            root = await self._trees.root(tenant, edge, edge.size)
            note = self._signer.note(self.origin(tenant), edge.size, root)
            signed = Signed(edge.size, root, note, self._clock.now())
            try:
                await self._documents.commit([created(tenant, signed)])
                self._made.inc()
            except DocumentExists:
                signed = await self.at(tenant, edge.size)  # the same tree, signed by another process
        await self._settle(tenant, edge.size)
        return signed

    async def _check(self, tenant: str, newest: Signed | None) -> None:
        if newest is None:
            return
        edge = await self._trees.reaching(tenant, newest.size)
        if edge.size < newest.size or await self._trees.root(tenant, edge, newest.size) != newest.root:
            self._refused.inc()
            raise StoreCorrupt(
                "The audit log is not what was signed before: something else than this service wrote to it."
            )

    async def _settle(self, tenant: str, size: int) -> None:
        """Batches that the checkpoint covers wait for none."""
        behind, end = unsigned_of(tenant), unsigned_after(tenant)
        while found := await self._documents.query(unsigned_behind(behind, _PAGE)):
            covered = [each for each in found if each.key.id < end and int(str(each.fields["size"])) <= size]
            if covered:
                await self._documents.commit([Delete(each.key) for each in covered])
            if len(covered) < _PAGE:
                return
            behind = covered[-1].key.id


def no_checkpoint(size: int) -> ApiError:
    said = f"of {size} entries" if size else "yet"
    return ApiError(Code.NOT_FOUND, "CHECKPOINT_NOT_FOUND", f"There is no checkpoint {said}.")


def _key(tenant: str, size: int) -> Key:
    return Key(tenant, CHECKPOINTS, f"{size:020d}")


def created(tenant: str, signed: Signed) -> Create:
    """The checkpoint as it is kept."""
    fields: dict[str, Value] = {"size": signed.size, "root": signed.root, "note": signed.note, "time": signed.time}
    return Create(_key(tenant, signed.size), fields)


def _signed(document: Document) -> Signed:
    fields: Any = document.fields
    return Signed(fields["size"], fields["root"], fields["note"], fields["time"])


def _time(document: Document) -> datetime:
    found: Any = document.fields["time"]
    return found  # type: ignore[no-any-return]  # as it was written
