"""The gateway as a plain ASGI application: find the route, authenticate, serve, answer."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from chassis.auth.refusals import Refusals
from chassis.clock import Clock
from chassis.errors import ApiError, Code, internal
from chassis.telemetry.metrics import Metrics
from gateway import signin
from gateway.auth import Authenticator
from gateway.cors import Cors
from gateway.endpoint import Answer, ClientLeft, Endpoint
from gateway.measures import Measures
from gateway.pages import Pages
from gateway.problems import (
    Headers,
    HttpError,
    method_not_allowed,
    path_malformed,
    path_unknown,
    problem,
)
from gateway.protocol import answer_whole
from gateway.request import Receive, Request, Scope, Send
from gateway.signin import CookieSignIn
from gateway.streaming import StreamEndpoint
from gateway.streams import stopping
from gateway.transcoding.routes import API_PREFIX, Route
from gateway.transcoding.template import MalformedPercent
from gateway.versions import Versions

_LOG: Final = logging.getLogger("bas.gateway")
_NO_BODY: Final = b""
_UNROUTED: Final = "unrouted"
DEADLINE: Final = 1.0
"""Seconds for finding out who asks where no method says how long it may take."""
_CLOSE: Final = (b"connection", b"close")


class App:
    """Answers every HTTP request; never raises but CancelledError. Websockets are refused."""

    def __init__(
        self,
        *,
        versions: Versions,
        endpoints: Mapping[int, Endpoint | StreamEndpoint],
        authenticator: Authenticator,
        sign_in: CookieSignIn,
        pages: Pages,
        cors: Cors,
        metrics: Metrics,
        refusals: Refusals,
        clock: Clock,
        new_id: Callable[[], str],
        max_body: int,
        body_seconds: float,
    ) -> None:
        self._versions = versions
        self._endpoints = endpoints
        self._authenticator = authenticator
        self._sign_in = sign_in
        self._pages = pages
        self._cors = cors
        self._measures = Measures(metrics)
        self._refusals = refusals
        self._monotonic = clock.monotonic
        self._new_id = new_id
        self._max_body = max_body
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._monotonic()
        request = Request(scope, receive, self._new_id)
        label = _Label()
        try:
            status, headers, body = await self._serve(request, label)
            if not isinstance(body, bytes):
                begun = self._monotonic() - started  # how long the rest takes is the stream's affair
                label.streams = True
                await body.deliver(status, self._head(request, headers, label.headers), send)
                self._measures.observe(label.route, request.method, status, begun)
                return
        except ClientLeft:
            self._measures.observe(label.route, request.method, 499, self._monotonic() - started)
            return
        except ApiError as error:
            self._refusals.caught(error, label.method, request.request_id)
            status, headers, body = problem(error, request.request_id)
        except MalformedPercent:
            status, headers, body = problem(path_malformed(), request.request_id)
        except asyncio.CancelledError:
            if not label.streams:
                await self._send(request, send, problem(stopping(), request.request_id), [_CLOSE])
            raise
        except Exception:  # noqa: BLE001 - the outermost layer: whatever it is, the client gets a problem
            _LOG.exception("request %s failed", request.request_id)
            status, headers, body = problem(internal(), request.request_id)
        await self._send(request, send, (status, headers, body), label.headers)
        self._measures.observe(label.route, request.method, status, self._monotonic() - started)

    async def _serve(self, request: Request, label: "_Label") -> Answer:
        if not request.path.startswith(API_PREFIX):
            return await self._page(request, label)
        if request.path.endswith(signin.PATH) and self._is_sign_in(request, label):
            if request.method == "OPTIONS":
                return 204, [(b"allow", signin.ALLOW)], b""  # and none for other origins
            return await self._sign_in.serve(request)
        if request.method == "OPTIONS":  # what a path allows is public: it stands in the OpenAPI document
            return self._options(request, self._find(request, label)[0])
        try:
            methods, raw = self._find(request, label)
        except (ApiError, MalformedPercent):
            await self._authenticate(request, None)
            raise
        route = methods.get(request.method)
        if route is None and request.method == "HEAD":
            route = methods.get("GET")
        endpoint = self._endpoints[id(route)] if route is not None else None
        label.method = route.method.path if route is not None else ""
        if endpoint is None or not endpoint.open or b"authorization" in request.headers:
            await self._authenticate(request, endpoint)
        if endpoint is None:
            raise method_not_allowed(_allow(methods))
        label.route = endpoint.route.label
        body = _NO_BODY
        if request.has_body:
            body = await self._body(request, endpoint)
        return await endpoint.serve(request, raw, body)

    async def _authenticate(self, request: Request, endpoint: Endpoint | StreamEndpoint | None) -> None:
        token = self._authenticator.begin(request)
        if token is None:
            return
        seconds = DEADLINE
        if endpoint is not None:
            with suppress(ApiError):  # a deadline that is none is refused once it is known who asks
                seconds = endpoint.seconds(request)
        await self._authenticator.exchange(request, token, seconds)
        if endpoint is not None and endpoint.open:
            request.credential = ""  # the token in the body is what such a method goes by, not the scopes of this one

    def _is_sign_in(self, request: Request, label: "_Label") -> bool:
        version, path = self._versions.resolve(request.path, request.header(b"api-version"))
        if path != signin.PATH:
            return False
        label.headers, label.route = version.headers_at(path), f"{API_PREFIX}{version.name}{path}"
        return True

    def _find(self, request: Request, label: "_Label") -> tuple[Mapping[str, Route], list[str]]:
        version, path = self._versions.resolve(request.path, request.header(b"api-version"))
        label.headers = version.headers_at(path)
        found = version.routes.match(path)
        if found is None:
            raise path_unknown()
        return found

    async def _body(self, request: Request, endpoint: Endpoint | StreamEndpoint) -> bytes:
        if not endpoint.takes_body:
            # A chunked body may still turn out to be empty, which is none.
            if b"content-length" in request.headers or await request.body(self._max_body, self._body_seconds):
                raise HttpError(400, Code.INVALID_ARGUMENT, "BODY_UNEXPECTED", "This method takes no body.")
            return _NO_BODY
        kind = request.media_type(endpoint.translations)
        body = await request.body(self._max_body, self._body_seconds)
        return endpoint.translations[kind](body) if kind else body

    async def _page(self, request: Request, label: "_Label") -> Answer:
        page = self._pages.find(request.path)
        if page is None:
            raise path_unknown()
        label.route = request.path
        if request.method == "OPTIONS":
            return 204, [(b"allow", b"GET, HEAD, OPTIONS")], b""
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(b"GET, HEAD, OPTIONS")
        return page()

    def _options(self, request: Request, methods: Mapping[str, Route]) -> Answer:
        allow = _allow(methods)
        return 204, [(b"allow", allow), *self._cors.preflight(request, allow)], b""

    def _head(self, request: Request, headers: Headers, more: Headers) -> Headers:
        sent = [(b"x-request-id", request.request_id.encode("latin-1")), *headers, *more]
        if b"origin" in request.headers:
            sent += self._cors.headers(request)
        return sent

    async def _send(self, request: Request, send: Send, answer: tuple[int, Headers, bytes], more: Headers) -> None:
        status, headers, body = answer
        sent = self._head(request, headers, more)
        if status not in (204, 304):
            sent.append((b"content-length", b"%d" % len(body)))
        plain = status in (200, 201) and request.method != "HEAD"
        if plain and answer_whole(send, status, sent, body):
            return
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})


class _Label:
    """What is known of a request by the time it is answered: its route, its RPC and the headers of its version."""

    __slots__ = ("headers", "method", "route", "streams")

    def __init__(self) -> None:
        self.method = ""
        self.route = _UNROUTED
        self.streams = False
        self.headers: Headers = []


def _allow(methods: Mapping[str, Route]) -> bytes:
    allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(allowed)).encode()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
