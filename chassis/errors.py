"""The one error table: stable codes, their gRPC status numbers and their HTTP statuses.

Everything that can go wrong on the way to an answer is an `ApiError`: validation, the store, the cache, another
service. An error is raised where it is known, carries its stable reason, and is turned into a gRPC status
(`chassis.interceptors`) or an `application/problem+json` body (`gateway.problems`) from this table and nowhere else.
Sources: google.rpc.Code, AIP-193, RFC 9457.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

DOMAIN: Final = "bas"
"""`ErrorInfo.domain` of every error of this platform."""

QUOTA: Final = "quota"
"""Where the metadata of an error says whose quota is used up, for `QuotaFailure`."""

_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class Code(Enum):
    """Canonical code: (gRPC status number, HTTP status, title)."""

    CANCELLED = (1, 499, "Client closed the request")
    UNKNOWN = (2, 500, "Unknown error")
    INVALID_ARGUMENT = (3, 400, "Invalid argument")
    DEADLINE_EXCEEDED = (4, 504, "Deadline exceeded")
    NOT_FOUND = (5, 404, "Not found")
    ALREADY_EXISTS = (6, 409, "Already exists")
    PERMISSION_DENIED = (7, 403, "Permission denied")
    RESOURCE_EXHAUSTED = (8, 429, "Resource exhausted")
    FAILED_PRECONDITION = (9, 400, "Failed precondition")
    ABORTED = (10, 409, "Aborted by a concurrent change")
    OUT_OF_RANGE = (11, 400, "Out of range")
    UNIMPLEMENTED = (12, 501, "Not implemented")
    INTERNAL = (13, 500, "Internal error")
    UNAVAILABLE = (14, 503, "Unavailable")
    DATA_LOSS = (15, 500, "Data loss")
    UNAUTHENTICATED = (16, 401, "Unauthenticated")

    def __init__(self, grpc_number: int, http_status: int, title: str) -> None:
        self.grpc_number = grpc_number
        self.http_status = http_status
        self.title = title


BY_GRPC_NUMBER: Final[Mapping[int, Code]] = MappingProxyType({code.grpc_number: code for code in Code})


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: `field` is its path in the request (`device.display_name`), and what is accepted."""

    field: str
    description: str


class ApiError(Exception):
    """A typed failure that may be shown to a caller.

    `reason` is stable UPPER_SNAKE_CASE and part of the API; `message` is for people and shows no stack, path, query
    or other tenant's name; `retry_after` is seconds until a retry makes sense, None when it does not.
    `pushback` is for the tiers of this platform, not for callers: seconds after which whoever it came from wants to be
    asked again, negative for never (it has been tried again already), None where nobody said.
    """

    pushback: float | None = None

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        metadata: Mapping[str, str] = _NO_METADATA,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations
        self.metadata = metadata
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.reason}, {self.message!r})"


def invalid_argument(*violations: Violation) -> ApiError:
    """One or more fields are wrong; the message names the first."""
    first = violations[0]
    return ApiError(
        Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", f"{first.field}: {first.description}", violations=violations
    )


def invalid_field(field: str, description: str) -> ApiError:
    """One field is wrong."""
    return invalid_argument(Violation(field, description))


def not_found(resource: str, resource_id: str) -> ApiError:
    """`resource` is singular snake_case (`device` → DEVICE_NOT_FOUND). Another tenant's resource is this, too."""
    return ApiError(Code.NOT_FOUND, f"{resource.upper()}_NOT_FOUND", f"There is no {_words(resource)} {resource_id!r}.")


def already_exists(resource: str, resource_id: str) -> ApiError:
    return ApiError(
        Code.ALREADY_EXISTS,
        f"{resource.upper()}_ALREADY_EXISTS",
        f"The {_words(resource)} {resource_id!r} already exists.",
    )


def etag_mismatch(resource: str, resource_id: str) -> ApiError:
    """The caller's etag is not the current one (AIP-154); HTTP answers 412 when it came from `If-Match`."""
    return ApiError(
        Code.ABORTED,
        "ETAG_MISMATCH",
        f"The {_words(resource)} {resource_id!r} has changed since it was read: read it again and repeat the change.",
    )


def unauthenticated(reason: str, message: str) -> ApiError:
    return ApiError(Code.UNAUTHENTICATED, reason, message)


def permission_denied(scope: str) -> ApiError:
    return ApiError(
        Code.PERMISSION_DENIED,
        "SCOPE_MISSING",
        f"The credential lacks the scope {scope!r}.",
        metadata={"scope": scope},
    )


def unavailable(reason: str, message: str, *, retry_after: float = 1.0) -> ApiError:
    return ApiError(Code.UNAVAILABLE, reason, message, retry_after=retry_after)


def deadline_exceeded(message: str = "The deadline passed before the work was done.") -> ApiError:
    return ApiError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message)


def unimplemented(message: str) -> ApiError:
    return ApiError(Code.UNIMPLEMENTED, "UNIMPLEMENTED", message)


def internal(message: str = "Something failed inside; the request id finds it in the logs.") -> ApiError:
    return ApiError(Code.INTERNAL, "INTERNAL", message)


def _words(resource: str) -> str:
    return resource.replace("_", " ")
