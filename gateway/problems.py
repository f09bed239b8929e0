"""Errors as HTTP answers: `application/problem+json` (RFC 9457) and the headers that belong to them."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from math import ceil
from typing import Final

from chassis.errors import QUOTA, ApiError, Code

Headers = list[tuple[bytes, bytes]]

CONTENT_TYPE: Final = (b"content-type", b"application/problem+json")
NO_STORE: Final = (b"cache-control", b"no-store")
_TYPE: Final = "urn:bas:problem:"


class HttpError(ApiError):
    """An error that only HTTP knows: its own status, and headers of its own."""

    def __init__(self, status: int, code: Code, reason: str, message: str, headers: Headers | None = None) -> None:
        super().__init__(code, reason, message)
        self.status = status
        self.headers: Headers = headers or []


def path_unknown() -> HttpError:
    return HttpError(404, Code.NOT_FOUND, "PATH_NOT_FOUND", "There is nothing at this path.")


def method_not_allowed(allow: bytes) -> HttpError:
    message = f"The methods of this path are {allow.decode()}."
    return HttpError(405, Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", message, [(b"allow", allow)])


def media_type_unsupported(others: Iterable[str] = ()) -> HttpError:
    """`others` are the media types that are accepted beside JSON."""
    accepted = ["application/json", *others]
    return HttpError(
        415,
        Code.INVALID_ARGUMENT,
        "UNSUPPORTED_MEDIA_TYPE",
        f"The body must be JSON in UTF-8, sent with Content-Type: {' or '.join(accepted)}.",
        [(b"accept-post", ", ".join(accepted).encode())],
    )


def body_too_large(limit: int) -> HttpError:
    message = f"The body is larger than {limit} bytes."
    return HttpError(413, Code.INVALID_ARGUMENT, "BODY_TOO_LARGE", message)


def body_too_slow() -> HttpError:
    message = "The body did not arrive in time."
    return HttpError(408, Code.DEADLINE_EXCEEDED, "BODY_TIMEOUT", message, [(b"connection", b"close")])


def precondition_failed(message: str) -> HttpError:
    return HttpError(412, Code.ABORTED, "ETAG_MISMATCH", message)


def path_malformed() -> ApiError:
    return ApiError(Code.INVALID_ARGUMENT, "MALFORMED_PATH", "The path has a malformed percent-encoding.")


def problem(error: ApiError, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers (without those of every answer) and body of an error."""
    status = error.status if isinstance(error, HttpError) else error.code.http_status
    document: dict[str, object] = {
        "type": _TYPE + error.reason,
        "title": error.code.title if not isinstance(error, HttpError) else HTTPStatus(error.status).phrase,
        "status": status,
        "detail": error.message,
        "instance": request_id,
        "code": error.reason,
    }
    if error.violations:
        document["errors"] = [{"field": each.field, "description": each.description} for each in error.violations]
    if error.metadata:
        document["metadata"] = dict(error.metadata)
    headers: Headers = [CONTENT_TYPE, NO_STORE]
    if isinstance(error, HttpError):
        headers += error.headers
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after))))
        if QUOTA in error.metadata:
            headers += _rate_limit(error.metadata, error.retry_after)
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", _challenge(error.reason)))
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return status, headers, body.encode("utf-8", "replace")


def _rate_limit(quota: Mapping[str, str], wait: float) -> Headers:
    """What a tenant may ask for, and when there is something again (draft-ietf-httpapi-ratelimit-headers): whole requests
    within whole seconds."""
    try:
        name, rate = quota[QUOTA], float(quota["rate"])
        requests, seconds = (int(rate), 1) if rate >= 1 else (1, ceil(1 / rate))
    except (KeyError, ValueError, ArithmeticError):
        return []
    return [
        (b"ratelimit-policy", f'"{name}";q={requests};w={seconds}'.encode("latin-1", "replace")),
        (b"ratelimit", f'"{name}";r=0;t={max(1, ceil(wait))}'.encode("latin-1", "replace")),
    ]


def _challenge(reason: str) -> bytes:
    """RFC 6750 §3: no error code when the request had no credential at all."""
    return b"Bearer" if reason == "TOKEN_MISSING" else b'Bearer error="invalid_token"'
