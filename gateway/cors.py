"""Cross-origin requests (Fetch standard, "CORS protocol"), for the origins that are configured and no others."""

from typing import Final

from gateway.problems import Headers
from gateway.request import Request

_EXPOSED: Final = (
    b"API-Version, ETag, Location, Retry-After, X-Request-Id, Deprecation, Sunset, Link, RateLimit, RateLimit-Policy"
)
_ACCEPTED: Final = b"Authorization, Content-Type, API-Version, Idempotency-Key, If-Match, If-None-Match, Request-Timeout, X-Request-Id, traceparent, Last-Event-ID"
_VARY: Final = (b"vary", b"Origin")


class Cors:
    """`*` among the origins allows any. Another origin's credential is a bearer header: the cookie is for this one's own
    pages, so credentials are never allowed here."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, request: Request) -> Headers:
        """The headers of an answer to a request with an `Origin`."""
        if not self._origins:
            return []
        origin = request.headers[b"origin"]
        if not self._any and origin not in self._origins:
            return [_VARY]
        allowed = b"*" if self._any else origin
        return [_VARY, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED)]

    def preflight(self, request: Request, allow: bytes) -> Headers:
        """The further headers of the answer to a preflight."""
        origin = request.headers.get(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return []
        return [
            (b"access-control-allow-methods", allow),
            (b"access-control-allow-headers", _ACCEPTED),
            (b"access-control-max-age", b"600"),
        ]
