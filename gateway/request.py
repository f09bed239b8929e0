"""One HTTP request as the gateway sees it: the headers that matter, the body, and whether the client is still there."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final

from chassis.errors import ApiError, Code, invalid_field
from gateway.problems import body_too_large, body_too_slow, media_type_unsupported

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]

_ID_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/+=")
_ID_LENGTH: Final = 128
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_NO_IDS: Final = re.compile(r"-(0{32}|0{16})-")
_TRACESTATE_LENGTH: Final = 512


class Request:
    """`headers` holds the last of each name: no header that matters here may be repeated, but for cookies.

    `credential` is the `authorization` that goes along with the call, empty until who calls is known; `session_token` is
    what it was exchanged for, if it was; `spent` are the seconds of the deadline that finding out has taken.
    """

    __slots__ = (
        "_named",
        "all_headers",
        "credential",
        "headers",
        "method",
        "path",
        "query",
        "receive",
        "request_id",
        "session_token",
        "spent",
    )

    def __init__(self, scope: Scope, receive: Receive, new_id: Callable[[], str]) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: bytes = scope["query_string"]
        self.all_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.all_headers)
        self.receive = receive
        given = self.header(b"x-request-id")
        self.request_id = given if given and _sane(given) else new_id()
        self.credential = ""
        self.session_token = ""
        self.spent = 0.0
        self._named: tuple[tuple[str, str], ...] | None = None

    def header(self, name: bytes) -> str:
        """The value of a header by its name in lower case, "" when it was not sent."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def has_body(self) -> bool:
        """Whether a body may follow, by what the headers say."""
        length = self.headers.get(b"content-length")
        return b"transfer-encoding" in self.headers or (length is not None and length.strip(b"0") != b"")

    def timeout(self) -> float | None:
        """Seconds of `Request-Timeout: 250ms`, None without it. Raises ApiError."""
        text = self.header(b"request-timeout")
        if not text:
            return None
        digits = text.rstrip("ms")
        unit = _UNITS.get(text[len(digits) :])
        if unit is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:  # noqa: PLR2004 - 31 years
            raise invalid_field("Request-Timeout", "A duration such as 250ms or 2s is expected.")
        seconds = int(digits) * unit
        if seconds <= 0:
            raise invalid_field("Request-Timeout", "The duration must be more than nothing.")
        return seconds

    def metadata(self, new_trace: Callable[[], str]) -> tuple[tuple[str, str], ...]:
        """What goes along with a call; `new_trace` makes a `traceparent` where none came (W3C Trace Context)."""
        if self._named is None:  # the calls of one request are of one trace
            self._named = (("x-request-id", self.request_id), *self._trace(new_trace))
        return (("authorization", self.credential), *self._named) if self.credential else self._named

    def _trace(self, new_trace: Callable[[], str]) -> tuple[tuple[str, str], ...]:
        trace = self.header(b"traceparent")
        if not trace or not _TRACEPARENT.fullmatch(trace) or _NO_IDS.search(trace):
            # A trace of its own; one that is malformed is begun anew, and its state is dropped (§3.3 of the standard).
            return (("traceparent", new_trace()),)
        state = self.header(b"tracestate")
        if state and len(state) <= _TRACESTATE_LENGTH and state.isascii() and state.isprintable():
            return ("traceparent", trace), ("tracestate", state)
        return (("traceparent", trace),)

    def media_type(self, others: Collection[str] = ()) -> str:
        """The media type of the body, "" for JSON. Raises ApiError (415) unless the body is said to be JSON, or one of
        `others`, in UTF-8, unencoded."""
        kind, *parameters = (part.strip().lower() for part in self.header(b"content-type").split(";"))
        plain = all(each in ("", "charset=utf-8", 'charset="utf-8"') for each in parameters)
        if plain and self.header(b"content-encoding").lower() in ("", "identity"):
            if kind == _JSON or (kind == _MERGE_PATCH and self.method == "PATCH"):
                return ""
            if kind in others:
                return kind
        raise media_type_unsupported(others)

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises ApiError as soon as it is more than `limit` bytes (413), when it takes longer than
        `seconds` (408), or when the client leaves (499)."""
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > limit:
            raise body_too_large(limit)
        try:
            async with asyncio.timeout(seconds):
                return await self._read(limit)
        except TimeoutError:
            raise body_too_slow() from None

    async def _read(self, limit: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ApiError(Code.CANCELLED, "CANCELLED", "The client went away.")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise body_too_large(limit)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _sane(text: str) -> bool:
    return len(text) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(text)
