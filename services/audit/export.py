"""The log as a stream, oldest entry first, a few entries in memory at a time, with what it takes to verify it offline.

A cursor names the tree and the next entry, so an export that was cut off goes on where it was, to the end that it had.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import ExportedEntry, ExportEntriesResponse
from chassis.api.cursors import Cursors, Position, invalid
from chassis.errors import invalid_field
from chassis.store.port import DocumentStore, StoreCorrupt
from services.audit.checkpoints import Checkpoints, no_checkpoint
from services.audit.records import Batch, batch_key, batch_of, batches_down, entry_key, stored

_STEP: Final = 25
"""Entries read at once: of the largest, two megabytes."""


class Exporter:
    def __init__(self, documents: DocumentStore, checkpoints: Checkpoints, cursors: Cursors) -> None:
        self._documents = documents
        self._checkpoints = checkpoints
        self._cursors = cursors

    async def export(self, tenant: str, cursor: str, tree_size: int) -> AsyncGenerator[bytes, None]:
        """Serialized ExportEntriesResponses: the checkpoint, then entries from the cursor on, up to its size. Raises
        INVALID_ARGUMENT on cursor and tree_size, CHECKPOINT_NOT_FOUND."""
        start = 0
        if cursor:
            size, start = self._read(tenant, cursor)
            if tree_size not in {0, size}:
                raise invalid_field("tree_size", f"must be {size}, as in the export that the cursor is of, or left out")
            tree_size = size
        signed = await self._checkpoints.of(tenant, tree_size)
        if signed is None:
            raise no_checkpoint(tree_size)
        checkpoint = self._checkpoints.message(tenant, signed)
        yield ExportEntriesResponse(checkpoint=checkpoint).SerializeToString()
        at = start
        batch = await self._holding(tenant, at) if at < signed.size else None
        while batch is not None:
            last = min(batch.end, signed.size)
            while at < last:
                ids = batch.ids[at - batch.first : min(at + _STEP, last) - batch.first]
                for entry in await self._entries(tenant, signed.size, at, ids):
                    yield ExportEntriesResponse(entry=entry).SerializeToString()
                at += len(ids)
            batch = await self._from(tenant, at) if at < signed.size else None

    def _read(self, tenant: str, cursor: str) -> tuple[int, int]:
        position = self._cursors.read(tenant, cursor)
        if not position.epoch.isdecimal() or position.sequence > int(position.epoch):
            raise invalid("cursor")
        return int(position.epoch), position.sequence

    async def _holding(self, tenant: str, sequence: int) -> Batch:
        """The batch that has that sequence."""
        found = await self._documents.query(batches_down(tenant, sequence, 1))
        batch = batch_of(found[0]) if found else None
        if batch is None or batch.end <= sequence:
            raise _hole(sequence)
        return batch

    async def _from(self, tenant: str, sequence: int) -> Batch:
        """The batch that begins there."""
        document = await self._documents.get(batch_key(tenant, sequence))
        if document is None:
            raise _hole(sequence)
        return batch_of(document)

    async def _entries(self, tenant: str, size: int, first: int, ids: Sequence[str]) -> list[ExportedEntry]:
        documents = await self._documents.get_many([entry_key(tenant, entry_id) for entry_id in ids])
        exported = []
        for at, document in enumerate(documents, first):
            if document is None:
                raise _hole(at)
            held = stored(document)
            entry = held.entry or Entry()
            entry.sequence = at
            cursor = self._cursors.write(tenant, Position(str(size), at + 1))
            record = ExportedEntry(entry=entry, leaf_hash=held.leaf, cursor=cursor)
            if held.entry is not None:
                record.personal_hash = held.personal
                record.personal_salt = held.salt
            exported.append(record)
        return exported


def _hole(sequence: int) -> StoreCorrupt:
    return StoreCorrupt(f"The audit log has no entry {sequence}: something else than this service wrote to it.")
