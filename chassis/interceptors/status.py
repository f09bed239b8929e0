"""The one mapping between `ApiError` and a gRPC status, in both directions.

An error travels as code, message and a `google.rpc.Status` in `grpc-status-details-bin` (AIP-193) with ErrorInfo, and
where there is something to say BadRequest, QuotaFailure, RetryInfo and RequestInfo; `grpc-retry-pushback-ms` (gRFC A6) says when to
come back.
"""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from chassis.errors import BY_GRPC_NUMBER, DOMAIN, QUOTA, ApiError, Code, Violation
from chassis.http2.grpc import Failure

DETAILS_KEY: Final = "grpc-status-details-bin"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
REQUEST_ID_KEY: Final = "x-request-id"

_MESSAGE_CHARACTERS: Final = 512
_DETAIL_BYTES: Final = 3072
"""Peers refuse trailers above 8 KiB by default; the message is in there twice, percent-encoded once."""

STATUS_CODES: Final[Mapping[Code, grpc.StatusCode]] = MappingProxyType(
    {BY_GRPC_NUMBER[status.value[0]]: status for status in grpc.StatusCode if status is not grpc.StatusCode.OK}
)
_FALLBACK_MESSAGES: Final[Mapping[Code, str]] = MappingProxyType(
    {
        Code.UNAVAILABLE: "The service cannot be reached.",
        Code.DEADLINE_EXCEEDED: "The deadline passed before the answer came.",
        Code.CANCELLED: "The call was cancelled.",
        Code.UNIMPLEMENTED: "The service does not have this method.",
    }
)
_RETRY_UNAVAILABLE: Final = 1.0
_PUSHBACK_DIGITS: Final = 12

_M = TypeVar("_M", bound=Message)
Trailers = tuple[tuple[str, str | bytes], ...]


def message_of(error: ApiError) -> str:
    """What the status says, no longer than the trailers bear."""
    text = error.message
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"


def trailers_of(error: ApiError, request_id: str) -> Trailers:
    """The trailing metadata that carries `error`. Violations that do not fit are left out."""
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.retry_after is not None:
        wait = Duration()
        wait.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(RetryInfo(retry_delay=wait))
    quota = error.metadata.get(QUOTA)
    if quota is not None:
        violation = QuotaFailure.Violation(subject=quota, description=message_of(error))
        details.append(QuotaFailure(violations=[violation]))
    if error.violations:
        details.append(_bad_request(error.violations))
    if request_id:
        details.append(RequestInfo(request_id=request_id))
    status = Status(code=error.code.grpc_number, message=message_of(error))
    for detail in details:
        status.details.add().Pack(detail)
    trailers: Trailers = ((DETAILS_KEY, status.SerializeToString()),)
    if request_id:
        trailers += ((REQUEST_ID_KEY, request_id),)
    if error.pushback is not None and error.pushback < 0:
        trailers += ((PUSHBACK_KEY, "-1"),)
    elif error.retry_after is not None:
        trailers += ((PUSHBACK_KEY, str(round(error.retry_after * 1000))),)
    return trailers


def error_of(failure: grpc.aio.AioRpcError) -> ApiError:
    """The error that a failed call of this platform carried.

    A status without our details (made by gRPC itself, or by something between) has the code's name as its reason and
    a message of ours, since the original may name addresses.
    """
    trailers = dict(failure.trailing_metadata() or ())
    return _error(
        failure.code().value[0], failure.details() or "", trailers.get(DETAILS_KEY), trailers.get(PUSHBACK_KEY)
    )


def error_of_failure(failure: Failure) -> ApiError:
    """The same for a call over `chassis.http2`."""
    raw = failure.trailers.get(DETAILS_KEY)
    try:
        details = None if raw is None else b64decode(raw + "=" * (-len(raw) % 4), validate=True)
    except ValueError:
        details = None
    return _error(failure.status, failure.message, details, failure.trailers.get(PUSHBACK_KEY))


def _error(number: int, message: str, details: object, pushback: object) -> ApiError:
    code = BY_GRPC_NUMBER.get(number, Code.UNKNOWN)
    carried = _carried(details)
    wanted = _pushback(pushback)
    retry_after = wanted if wanted is not None and wanted >= 0 else None
    info = _find(carried, ErrorInfo())
    if info is None or info.domain != DOMAIN:
        if retry_after is None and code is Code.UNAVAILABLE:
            retry_after = _RETRY_UNAVAILABLE
        error = ApiError(code, code.name, _FALLBACK_MESSAGES.get(code, f"{code.title}."), retry_after=retry_after)
        error.pushback = wanted
        return error
    retry, request = _find(carried, RetryInfo()), _find(carried, BadRequest())
    if retry is not None:
        retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    violations = request.field_violations if request is not None else ()
    error = ApiError(
        code,
        info.reason,
        message,
        violations=tuple(Violation(each.field, each.description) for each in violations),
        metadata=dict(info.metadata),
        retry_after=retry_after,
    )
    error.pushback = retry_after if wanted is None else wanted
    return error


def _pushback(text: object) -> float | None:
    """Seconds; what is no number of milliseconds means not to retry (gRFC A6), as a negative one does."""
    if text is None:
        return None
    well = isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= _PUSHBACK_DIGITS
    return int(text) / 1000 if well else -1.0  # type: ignore[call-overload]  # it is a str then


def _bad_request(violations: Iterable[Violation]) -> BadRequest:
    request, size = BadRequest(), 0
    for violation in violations:
        size += len(violation.field.encode()) + len(violation.description.encode()) + 8
        if size > _DETAIL_BYTES:
            break
        request.field_violations.add(field=violation.field, description=violation.description)
    return request


def _carried(raw: object) -> list[Any]:
    if not isinstance(raw, bytes):
        return []
    try:
        return list(Status.FromString(raw).details)
    except DecodeError:
        return []


def _find(details: list[Any], into: _M) -> _M | None:
    """`into`, filled from the first detail of its type."""
    for detail in details:
        if detail.TypeName() == into.DESCRIPTOR.full_name:
            try:
                detail.Unpack(into)
            except DecodeError:
                return None
            return into
    return None
