"""The policy of every RPC, read once from the compiled descriptors into frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from bas.annotations.v2 import annotations_pb2


class Credential(Enum):
    """What the caller proves itself with; `NONE` only for health, reflection and channelz where they are open."""

    TOKEN = "token"  # noqa: S105 - a name, not a secret
    SESSION_TOKEN = "session_token"  # noqa: S105 - a name, not a secret
    NONE = "none"


class Retry(Enum):
    """When a client may send a call again without knowing what became of the first."""

    NEVER = annotations_pb2.RETRY_UNSPECIFIED
    SAFE = annotations_pb2.RETRY_SAFE
    WITH_REQUEST_ID = annotations_pb2.RETRY_WITH_REQUEST_ID
    WITH_ETAG = annotations_pb2.RETRY_WITH_ETAG
    WITH_CURSOR = annotations_pb2.RETRY_WITH_CURSOR


@dataclass(frozen=True, slots=True)
class Policy:
    """How an RPC may be called. `scope` is empty where any caller will do; deadlines are in seconds, None where there
    is none, which is for streams."""

    scope: str
    credential: Credential = Credential.TOKEN
    retry: Retry = Retry.NEVER
    default_deadline: float | None = None
    max_deadline: float | None = None
    cached: bool = False
    idempotency_field: str = ""
    key: tuple[int, ...] = ()
    """Where a request of WITH_REQUEST_ID or WITH_ETAG has what makes its repetition harmless: numbers of the fields on
    the way, outermost first."""

    def stretched(self, by: float) -> "Policy":
        """The same with `by` times its deadlines (`BAS_DEADLINE_STRETCH`)."""
        default, longest = self.default_deadline, self.max_deadline
        return replace(self, default_deadline=default and default * by, max_deadline=longest and longest * by)


def of_method(method: MethodDescriptor) -> Policy:
    """The policy that `method` declares. Raises TypeError if it declares none or no scope: a bug of the protos."""
    declared = method.GetOptions().Extensions[annotations_pb2.policy]
    if not declared.scope:
        raise TypeError(f"{method.full_name} declares no policy with a scope")
    return of_declared(declared, _key(method.input_type, declared))


def of_declared(declared: annotations_pb2.MethodPolicy, key: tuple[int, ...] = ()) -> Policy:
    """The policy of a method whose request has what makes its repetition harmless at `key`."""
    by_session = declared.credential == annotations_pb2.CREDENTIAL_SESSION_TOKEN
    return Policy(
        scope=declared.scope,
        credential=Credential.SESSION_TOKEN if by_session else Credential.TOKEN,
        retry=Retry(declared.retry),
        default_deadline=_seconds(declared.default_deadline_ms),
        max_deadline=_seconds(declared.max_deadline_ms),
        cached=declared.cached,
        idempotency_field=declared.idempotency_field,
        key=key,
    )


def of_service(service: ServiceDescriptor) -> Mapping[str, Policy]:
    """Method path (`/bas.devices.v2.DeviceService/GetDevice`) → policy, for every RPC of `service`."""
    return MappingProxyType({path(method): of_method(method) for method in service.methods})


def path(method: MethodDescriptor) -> str:
    """The name of an RPC on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def key_names(declared: annotations_pb2.MethodPolicy, fields: Mapping[str, bool]) -> tuple[str, ...]:
    """Names of the fields on the way to what makes a repetition harmless; none for a method that has no such thing.
    `fields` are the request's, with whether what is in them has an etag."""
    if declared.retry == annotations_pb2.RETRY_WITH_REQUEST_ID:
        return tuple(declared.idempotency_field.split("."))
    if declared.retry == annotations_pb2.RETRY_WITH_ETAG:
        return (
            ("etag",) if "etag" in fields else next(((name, "etag") for name, within in fields.items() if within), ())
        )
    return ()


def _key(request: Descriptor, declared: annotations_pb2.MethodPolicy) -> tuple[int, ...]:
    fields = {each.name: _has_etag(each.message_type) for each in request.fields}
    numbers, message = [], request
    for name in key_names(declared, fields):
        field = message.fields_by_name[name]
        numbers.append(field.number)
        message = field.message_type or message
    return tuple(numbers)


def _has_etag(message: Descriptor | None) -> bool:
    return message is not None and "etag" in message.fields_by_name


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds else None
