"""One route at work: bind, call, answer. Everything that does not change from request to request is made at the start."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote

from chassis.config import Deadline
from chassis.errors import ApiError, internal, invalid_field, unimplemented
from chassis.policies import Policy
from chassis.resilience.shedding import Shedder
from gateway.departure import Departures
from gateway.preconditions import entity_tag, if_match, unchanged
from gateway.problems import NO_STORE, Headers, precondition_failed
from gateway.request import Request, Send
from gateway.transcoding.binding import NO_EXTRAS, Binder, Extras
from gateway.transcoding.codec import BadValue, Codec, Decoded
from gateway.transcoding.names import as_sent
from gateway.transcoding.routes import Route
from gateway.upstream import UnaryCall


class Body(Protocol):
    """A body that comes piece by piece."""

    async def deliver(self, status: int, headers: Headers, send: Send) -> None:
        """Send head and body; once the head is sent, whatever fails is told in the body. Raises ApiError before it;
        CancelledError."""
        ...


Answer = tuple[int, Headers, bytes | Body]

_EMPTY: Final = "google.protobuf.Empty"
_JSON: Final = (b"content-type", b"application/json")
_REVALIDATE: Final = (b"cache-control", b"private, no-cache")
_VARY: Final = (b"vary", b"Authorization, Cookie, API-Version")
_PLAIN_HEADERS: Final[Headers] = [_JSON, NO_STORE]


class Endpoint:
    """`deadline` is for a method whose policy names none, and stretches what others name; `new_trace` makes a
    `traceparent`; `load` refuses what would be answered too late."""

    __slots__ = (
        "_binder",
        "_body",
        "_call",
        "_created_id",
        "_deadline",
        "_departures",
        "_etag",
        "_lane",
        "_load",
        "_longest",
        "_new_trace",
        "_reads",
        "_response",
        "_status",
        "open",
        "route",
        "takes_body",
        "translations",
    )

    def __init__(
        self,
        route: Route,
        binder: Binder,
        codec: Codec,
        call: UnaryCall | None,
        *,
        departures: Departures,
        has_etag: bool,
        deadline: Deadline,
        new_trace: Callable[[], str],
        load: Shedder,
    ) -> None:
        method, policy = route.method, route.method.policy
        self.route = route
        self.open = bool(policy.credential)
        self.takes_body = binder.takes_body
        self.translations = binder.translations
        self._binder = binder
        # A variable of the path that lies within the body field is the body's, too: its name there is what was sent.
        self._body = binder.body_name
        self._departures = departures
        self._call = call
        self._new_trace = new_trace
        self._response = None if method.response == _EMPTY else codec[method.response]
        self._etag = has_etag
        self._reads = route.rule.method == "GET"
        self._load = load
        self._lane = self._load.lane(Policy(policy.scope), streams=False)
        self._status = 201 if policy.created else 200
        self._created_id = tuple(policy.created_id.split(".")) if policy.created and policy.created_id else ()
        self._deadline = policy.default_deadline_ms / 1000 * deadline.stretch or float(deadline.default)
        self._longest = policy.max_deadline_ms / 1000 * deadline.stretch or self._deadline

    async def serve(self, request: Request, raw: list[str], body: bytes) -> Answer:
        """Raises ApiError; MalformedPercent for the path; CancelledError when the client left."""
        load = self._load
        load.in_progress += 1
        try:
            if load.in_progress > self._lane.most:
                raise load.refuse(self._lane)
            return await self._serve(request, raw, body)
        finally:
            load.in_progress -= 1

    async def _serve(self, request: Request, raw: list[str], body: bytes) -> Answer:
        call = self._available()
        extras, demanded = self._extras(request)
        message = self._binder.bind(raw, request.query, body, extras)
        seconds = self.seconds(request) - request.spent
        departure = self._departures.watch(request.receive)
        try:
            data = await call(message, seconds, request.metadata(self._new_trace))
        except ApiError as error:
            if demanded and error.reason == "ETAG_MISMATCH":
                raise precondition_failed(error.message) from None
            raise as_sent(error, self._body) from None
        except asyncio.CancelledError:
            if not departure.happened:
                raise
            raise ClientLeft from None
        finally:
            self._departures.leave(departure)
        return self._answer(request, data)

    def seconds(self, request: Request) -> float:
        """The deadline of a request. Raises ApiError for a `Request-Timeout` that is none."""
        asked = request.timeout()
        return self._deadline if asked is None else min(asked, self._longest)

    def _available(self) -> UnaryCall:
        if self._call is None:
            raise unimplemented(f"The {self.route.method.service} service is not part of this deployment.")
        return self._call

    def _extras(self, request: Request) -> tuple[Extras, bool]:
        headers = request.headers
        key = headers.get(b"idempotency-key")
        match = headers.get(b"if-match")
        if key is None and match is None:
            return NO_EXTRAS, False
        etag = if_match(request.header(b"if-match")) if match is not None and self._binder.takes_etag else ""
        return Extras(_key(request.header(b"idempotency-key")), etag), bool(etag)

    def _answer(self, request: Request, data: bytes) -> Answer:
        if self._response is None:
            return 204, [NO_STORE], b""
        try:
            decoded = self._response.from_binary(data)
            headers = self._headers(request, decoded)
            if self._reads and len(headers) > len(_PLAIN_HEADERS):
                asked = request.headers.get(b"if-none-match")
                if asked is not None and unchanged(asked.decode("latin-1"), headers[-1][1]):
                    return 304, headers[1:], b""
            return self._status, headers, decoded.json()
        except BadValue:
            raise internal() from None

    def _headers(self, request: Request, decoded: Decoded) -> Headers:
        headers = _PLAIN_HEADERS
        tag = entity_tag(decoded.text(("etag",))) if self._etag else None
        if tag is not None:
            headers = [_JSON, _REVALIDATE, _VARY, (b"etag", tag)] if self._reads else [_JSON, NO_STORE, (b"etag", tag)]
        if self._created_id:
            made = quote(decoded.text(self._created_id), safe="")
            headers = [*headers, (b"location", f"{request.path}/{made}".encode("latin-1"))]
        return headers


class ClientLeft(Exception):
    """Nobody is there to be answered."""


def _key(header: str) -> str:
    """An `Idempotency-Key`, bare or as the quoted string of the IETF draft."""
    quoted = len(header) > 1 and header[0] == header[-1] == '"'
    key = header[1:-1] if quoted else header
    if not key.isascii() or '"' in key:
        raise invalid_field("Idempotency-Key", "A key of printable ASCII characters is expected.")
    return key
