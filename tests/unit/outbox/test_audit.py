"""The audit service as a consumer: entries under their effects' ids, each answered by itself."""

from google.protobuf.descriptor import MethodDescriptor
from google.rpc.code_pb2 import INVALID_ARGUMENT

from bas.audit.v2.audit_service_pb2 import AppendEntryRequest, BatchAppendEntriesRequest, BatchAppendEntriesResponse
from chassis.errors import ApiError, Code
from chassis.interceptors.client import Metadata, UnaryCall
from chassis.outbox.audit import deliver_audit
from chassis.outbox.port import AUDIT, Effect


class Service:
    """Appends what has an action."""

    def __init__(self) -> None:
        self.request = BatchAppendEntriesRequest()

    def unary(self, method: MethodDescriptor) -> UnaryCall:
        assert method.name == "BatchAppendEntries"

        async def call(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109
            assert timeout is not None
            assert metadata == (("tenant", "acme"),)
            self.request = BatchAppendEntriesRequest.FromString(request)
            answer = BatchAppendEntriesResponse()
            for entry in self.request.entries:
                result = answer.results.add()
                if entry.action:
                    result.appended.SetInParent()
                else:
                    result.error.code = INVALID_ARGUMENT
                    result.error.reason = "INVALID_ARGUMENT"
            return answer.SerializeToString()

        return call

    def as_tenant(self, tenant: str, scope: str) -> Metadata:
        assert scope == "audit:write"
        return (("tenant", tenant),)


def entry(name: str, action: str) -> Effect:
    request = AppendEntryRequest()
    request.entry.action = action
    return Effect(name, AUDIT, "acme", "devices/d1", request.SerializeToString())


async def test_each_entry_is_answered_by_itself_under_its_effects_id() -> None:
    service = Service()
    broken = Effect("broken", AUDIT, "acme", "devices/d2", b"\xff")
    answers = await deliver_audit(service)([entry("a", "device.created"), entry("b", ""), broken, entry("c", "x")])
    assert [each.idempotency_key for each in service.request.entries] == ["a", "b", "broken", "c"]
    failures = [each.code if isinstance(each, ApiError) else each for each in answers]
    assert failures == [None, Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT, None]
