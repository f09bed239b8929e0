"""The consumer of audit entries: the audit service, to which an entry of the same idempotency key is the same entry."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from bas.audit.v2 import audit_service_pb2
from bas.problem.v2.problem_pb2 import Problem
from chassis import policies
from chassis.errors import BY_GRPC_NUMBER, ApiError, Code
from chassis.module import Peer
from chassis.outbox.port import Deliver, Effect

SERVICE: Final = "audit"
TIMEOUT: Final = 4.0
_APPEND: Final = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].methods_by_name["BatchAppendEntries"]


def deliver_audit(peer: Peer) -> Deliver:
    """Appends entries as the tenant they are of, under their effects' ids. No I/O.

    Entries are kept by their own times and not by when they came, so one that is refused does not hold up the rest of its
    delivery; later deliveries of its key wait until it is parked.
    """
    call = peer.unary(_APPEND)
    scope = policies.of_method(_APPEND).scope

    async def deliver(effects: Sequence[Effect]) -> Sequence[BaseException | None]:
        request = audit_service_pb2.BatchAppendEntriesRequest()
        for effect in effects:
            entry = request.entries.add()
            try:
                entry.CopyFrom(audit_service_pb2.AppendEntryRequest.FromString(effect.payload).entry)
            except DecodeError:
                entry.Clear()  # which the audit service refuses, and no other entry for it
            entry.idempotency_key = effect.id
        answered = await call(request.SerializeToString(), TIMEOUT, peer.as_tenant(effects[0].tenant, scope))
        results = audit_service_pb2.BatchAppendEntriesResponse.FromString(answered).results
        return [_failure(result.error) if result.HasField("error") else None for result in results]

    return deliver


def _failure(problem: Problem) -> ApiError:
    return ApiError(BY_GRPC_NUMBER.get(problem.code, Code.UNKNOWN), problem.reason, problem.message)
