"""One route whose answer is a stream: bind, call, and pass each message on as it comes.

The answer begins with the first message: an error before it is an answer of its own, with its status; one after it is
the last thing in the stream. Each message is written before the next one is read, so that a client that reads slowly
slows the service down and fills no memory.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chassis.auth.refusals import Refused
from chassis.errors import ApiError, permission_denied, unimplemented
from chassis.interceptors.stream import StreamCall
from gateway.auth import Authenticator
from gateway.delivery import LAYOUTS, Bounds, Delivery
from gateway.departure import Departures
from gateway.endpoint import Answer, ClientLeft
from gateway.negotiation import Form, form_of
from gateway.problems import NO_STORE, Headers
from gateway.request import Request, Send
from gateway.resume import resumed
from gateway.sse.port import Credential, Opening, StreamHandler
from gateway.streams import Streams
from gateway.transcoding.binding import Binder
from gateway.transcoding.codec import Codec
from gateway.transcoding.names import as_sent
from gateway.transcoding.routes import Route
from gateway.upstream import Metadata

_HEADERS: Final[Mapping[Form, Headers]] = {
    Form.NDJSON: [NO_STORE, (b"x-accel-buffering", b"no")],
    Form.SSE: [(b"cache-control", b"no-store, no-transform"), (b"x-accel-buffering", b"no")],
}


class StreamEndpoint:
    """A client without a preference gets event streams where `streams` has a handler for them, and NDJSON elsewhere.
    `resumes`: the request has a cursor."""

    __slots__ = (
        "_authenticator",
        "_binder",
        "_body",
        "_bounds",
        "_call",
        "_default",
        "_departures",
        "_handler",
        "_new_trace",
        "_response",
        "_resumes",
        "_streams",
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
        call: StreamCall | None,
        *,
        authenticator: Authenticator,
        departures: Departures,
        streams: Streams,
        bounds: Bounds,
        resumes: bool,
        new_trace: Callable[[], str],
    ) -> None:
        self.route = route
        self.open = False
        self.takes_body = binder.takes_body
        self.translations = binder.translations
        self._binder = binder
        self._body = binder.body_name
        self._call = call
        self._response = codec[route.method.response]
        self._authenticator = authenticator
        self._departures = departures
        self._streams = streams
        self._handler: StreamHandler | None = streams.handlers.get(route.method.path)
        self._default = Form.NDJSON if self._handler is None else Form.SSE
        self._bounds = bounds
        self._resumes = resumes
        self._new_trace = new_trace

    async def serve(self, request: Request, raw: list[str], body: bytes) -> Answer:
        """The head of the answer, and a body that begins. Raises ApiError; MalformedPercent for the path; CancelledError,
        ClientLeft."""
        if self._call is None:
            raise unimplemented(f"The {self.route.method.service} service is not part of this deployment.")
        query = resumed(request.query, request.header(b"last-event-id")) if self._resumes else request.query
        message = self._binder.bind(raw, query, body)
        first = self.seconds(request) - request.spent
        credential = self._authenticator.credential(request)
        form = form_of(request.header(b"accept"), self._default)
        if self._handler is not None and form is Form.SSE and request.method != "HEAD":
            return 200, [], self._handed(self._handler, request, message, credential)
        return await self._begun(self._call, request, message, first, credential.caller.tenant, form)

    def seconds(self, request: Request) -> float:
        """How long a request waits for the first message. Raises ApiError for a `Request-Timeout` that is none."""
        asked = request.timeout()
        return self._bounds.first if asked is None else min(asked, self._bounds.first)

    async def _begun(
        self, call: StreamCall, request: Request, message: bytes, first: float, tenant: str, form: Form
    ) -> Answer:
        metadata = request.metadata(self._new_trace)
        stream = call(message, metadata, first)
        answer = Delivery(stream, request, LAYOUTS[form], self._response, self._departures, self._streams, self._bounds)
        departure = self._departures.watch(request.receive)
        try:
            self._streams.enter(answer, tenant)
            answer.first = await anext(stream, None)
            if request.method == "HEAD":
                answer.end()
        except ApiError as error:
            answer.end()
            raise as_sent(error, self._body) from None
        except asyncio.CancelledError:
            answer.end()
            if not departure.happened:
                raise
            raise ClientLeft from None
        finally:
            self._departures.leave(departure)
        kind = (b"content-type", form.content_type)
        return 200, [kind, *_HEADERS[form]], answer

    def _handed(self, handler: StreamHandler, request: Request, message: bytes, credential: Credential) -> "_Handed":
        scope = self.route.method.policy.scope
        if not credential.caller.may(scope):
            raise Refused(permission_denied(scope), "SCOPE_MISSING", credential.caller)
        metadata = request.metadata(self._new_trace)
        return _Handed(handler, request, message, credential, metadata, self._authenticator)


@dataclass(frozen=True, slots=True)
class _Handed:
    """An answer that a handler gives."""

    handler: StreamHandler
    request: Request
    message: bytes
    credential: Credential
    metadata: Metadata
    authenticator: Authenticator

    async def deliver(self, status: int, headers: Headers, send: Send) -> None:
        del status  # the handler has its own
        opening = Opening(
            message=self.message,
            credential=self.credential,
            renew=lambda seconds: self.authenticator.renew(self.credential, seconds, self.metadata),
            metadata=self.metadata,
            headers=headers,
            send=send,
            receive=self.request.receive,
        )
        await self.handler.serve(opening)
