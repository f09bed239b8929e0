# ruff: noqa: N802 - methods are named as their RPCs are
"""AuditService: one method an RPC. Scopes, deadlines and field rules are checked before a method runs."""

from collections.abc import AsyncGenerator
from typing import Final

from bas.audit.v2.audit_pb2 import Checkpoint, ConsistencyProof, Entry, InclusionProof
from bas.audit.v2.audit_service_pb2 import (
    ACKNOWLEDGEMENT_INTEGRATED,
    AppendEntryRequest,
    AppendEntryResponse,
    BatchAppendEntriesRequest,
    BatchAppendEntriesResponse,
    ErasePersonalDataRequest,
    ErasePersonalDataResponse,
    ExportEntriesRequest,
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    GetEntryRequest,
    GetInclusionProofRequest,
    GetVerifierKeyRequest,
    ListEntriesRequest,
    ListEntriesResponse,
    RecentEntriesRequest,
    RecentEntriesResponse,
    VerifierKey,
)
from chassis.context import caller, tenant
from chassis.errors import invalid_field
from services.audit.appending import Appender
from services.audit.checkpoints import Checkpoints, no_checkpoint
from services.audit.erasure import Eraser
from services.audit.export import Exporter
from services.audit.proofs import Proofs
from services.audit.reading import Reader
from services.audit.readings import Readings
from services.audit.recent import Recent

ANSWER_BYTES: Final = 160
"""What an answer says of an entry beside what was asked, at most."""
PROOF_BYTES: Final = 3072
"""And of its proof: 63 hashes of 34 bytes, and a checkpoint."""


class AuditServicer:
    def __init__(
        self,
        *,
        appender: Appender,
        reader: Reader,
        readings: Readings,
        recent: Recent,
        exporter: Exporter,
        checkpoints: Checkpoints,
        proofs: Proofs,
        eraser: Eraser,
        max_message: int,
    ) -> None:
        self._appender = appender
        self._reader = reader
        self._readings = readings
        self._recent = recent
        self._exporter = exporter
        self._checkpoints = checkpoints
        self._proofs = proofs
        self._eraser = eraser
        self._most_bytes = max_message

    async def AppendEntry(self, request: AppendEntryRequest) -> AppendEntryResponse:
        return await self._appender.append(tenant(), request)

    async def BatchAppendEntries(self, request: BatchAppendEntriesRequest) -> BatchAppendEntriesResponse:
        proven = request.acknowledgement == ACKNOWLEDGEMENT_INTEGRATED
        size = request.ByteSize() + len(request.entries) * (ANSWER_BYTES + proven * PROOF_BYTES)
        if size > self._most_bytes:
            raise invalid_field("entries", "are together too large for an answer that shows them: send fewer at once")
        return await self._appender.append_batch(tenant(), request)

    async def GetEntry(self, request: GetEntryRequest) -> Entry:
        await self._readings.record(caller())
        return await self._reader.get(tenant(), request.entry_id)

    async def ListEntries(self, request: ListEntriesRequest) -> ListEntriesResponse:
        await self._readings.record(caller())
        return await self._reader.page(tenant(), request)

    async def RecentEntries(self, request: RecentEntriesRequest) -> RecentEntriesResponse:
        await self._readings.record(caller())
        return await self._recent.page(tenant(), request.page_size)

    async def ExportEntries(self, request: ExportEntriesRequest) -> AsyncGenerator[bytes, None]:
        who = caller()
        await self._readings.record(who)
        async for record in self._exporter.export(who.tenant, request.cursor, request.tree_size):
            yield record

    async def GetCheckpoint(self, request: GetCheckpointRequest) -> Checkpoint:
        signed = await self._checkpoints.of(tenant(), request.tree_size)
        if signed is None:
            raise no_checkpoint(request.tree_size)
        return self._checkpoints.message(tenant(), signed)

    async def GetInclusionProof(self, request: GetInclusionProofRequest) -> InclusionProof:
        sequence = await self._reader.sequence(tenant(), request.entry_id)
        return await self._proofs.in_tree(tenant(), sequence, request.tree_size)

    async def GetConsistencyProof(self, request: GetConsistencyProofRequest) -> ConsistencyProof:
        return await self._proofs.consistency(tenant(), request.first_tree_size, request.second_tree_size)

    async def GetVerifierKey(self, request: GetVerifierKeyRequest) -> VerifierKey:
        del request
        return VerifierKey(origin=self._checkpoints.origin(tenant()), key=self._checkpoints.verifier_key(tenant()))

    async def ErasePersonalData(self, request: ErasePersonalDataRequest) -> ErasePersonalDataResponse:
        return await self._eraser.erase(caller(), request.actor, request.entry_id)
