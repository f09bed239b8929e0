"""A gateway whose hub follows an events service in memory, and browsers on raw sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionResponse
from chassis.auth.tokens import Grant
from chassis.clock import SystemClock
from chassis.config import Config, Gateway
from chassis.context import Caller
from chassis.errors import unauthenticated
from chassis.interceptors.stream import StreamCall
from chassis.policies import Policy
from chassis.telemetry.metrics import Metrics
from gateway.module import Gateway as Built
from gateway.module import build
from gateway.server import GatewayServer
from gateway.sse.handler import EventStreams
from gateway.sse.hub import Hub
from gateway.sse.module import SUBSCRIBE_PATH
from gateway.upstream import Metadata, UnaryCall
from tests.support import patience
from tests.support.events import EventsUpstream, FakeEvents
from tests.support.eventually import eventually
from tests.support.sse import Parser

PATH = "/api/v2/events/stream"
ORIGIN = "https://app.example"
_KEPT = 4096
"""Bytes of a body that are kept as they came, at least."""


class Tokens:
    """`Bearer <tenant>`, or `Bearer <tenant>/<session>`; `nobody` has no scope. Caller tokens that the gateway signs are of
    the same form."""

    def verify(self, authorization: str) -> Caller:
        if not authorization:
            raise unauthenticated("TOKEN_MISSING", "A credential is required.")
        tenant, _, session = authorization.removeprefix("Bearer ").partition("/")
        scopes = frozenset() if tenant == "nobody" else frozenset({"events:read"})
        return Caller(tenant, "tester", scopes, 4e9, session)


def issue(grant: Grant) -> str:
    return f"{grant.tenant}/{grant.session_id}" if grant.session_id else grant.tenant


class FakeSessions:
    """The sessions service: `bas_<id>` is the token of a session of acme, until it is revoked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def unary(self, path: str, policy: Policy) -> UnaryCall:
        del path, policy
        return self._authenticate

    def stream(self, path: str) -> StreamCall:
        raise NotImplementedError

    async def ready(self, service: str, seconds: float) -> bool:
        del service, seconds
        return True

    async def close(self) -> None:
        return

    async def _authenticate(self, request: bytes, seconds: float, metadata: Metadata) -> bytes:
        del seconds, metadata
        session = request.split(b"bas_")[1].decode()
        if session in self.revoked:
            raise unauthenticated("SESSION_INVALID", "Over.")
        answer = AuthenticateSessionResponse(tenant="acme")
        answer.session.session_id, answer.session.user_id = session, "ada"
        answer.session.scopes.append("events:read")
        answer.session.expire_time.seconds = 4_000_000_000
        return answer.SerializeToString()


@dataclass
class Serving:
    """All of it."""

    events: FakeEvents
    sessions: FakeSessions
    server: GatewayServer
    built: Built
    metrics: Metrics

    @property
    def hub(self) -> Hub:
        handler = self.built.streams.handlers[SUBSCRIBE_PATH]
        assert isinstance(handler, EventStreams)
        return handler.hub

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def listen(self, query: str = "", version: str = "1.1", token: str = "acme", **headers: str) -> "Listener":
        """A connection that reads what comes in the background."""
        return await self._open(Listener(), query, version, token, headers)

    async def _open(
        self, listener: "Listener", query: str, version: str, token: str, headers: dict[str, str]
    ) -> "Listener":
        given = {"host": "x", "authorization": f"Bearer {token}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        await listener.open(self.server.port, f"GET {PATH}{query} HTTP/{version}\r\n{lines}\r\n".encode())
        return listener

    async def stalled(self, **settings: int) -> socket.socket:
        """A connection whose answer nobody reads."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.get("kernel", 4096))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience.CLIENT):
            await loop.sock_connect(sock, ("127.0.0.1", self.server.port))
            request = f"GET {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer acme\r\n\r\n"
            await loop.sock_sendall(sock, request.encode())
        return sock


@dataclass(eq=False)
class Listener:
    """A browser: the head of the answer, then a strict reader of the body."""

    head: str = ""
    parser: Parser = field(default_factory=Parser)
    body: bytes = b""
    over: bool = False
    _task: "asyncio.Task[None] | None" = None
    _writer: "asyncio.StreamWriter | None" = None

    async def open(self, port: int, request: bytes) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(request)
        async with asyncio.timeout(patience.CLIENT):
            self.head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        self._task = asyncio.create_task(self._read(reader))

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def names(self) -> list[str]:
        return [each.name for each in self.parser.events]

    def ids(self) -> list[str]:
        return [each.last_event_id for each in self.parser.events]

    async def until(self, condition: Callable[["Listener"], bool], what: str) -> None:
        await eventually(lambda: condition(self), what)

    async def count(self, number: int) -> None:
        """Wait for so many events."""
        await self.until(lambda each: len(each.parser.events) >= number, f"{number} events")

    async def ended(self) -> None:
        await self.until(lambda each: each.over, "the end of the answer")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                if len(self.body) < _KEPT:
                    self.body += chunk
                self.parser.feed(chunk)
        self.over = True


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Serving]:
    """`settings` are the gateway's."""
    fixed: dict[str, Any] = {"port": 0, "cors_origins": (ORIGIN,)}
    config = Config(gateway=Gateway(**fixed | settings))
    events, sessions, metrics = FakeEvents(), FakeSessions(), Metrics()
    built = build(
        config,
        clock=SystemClock(),
        verifier=Tokens(),
        metrics=metrics,
        upstreams={"events": EventsUpstream(events), "sessions": sessions},
        random_bytes=os.urandom,
        issue=issue,
    )
    server = GatewayServer(config.gateway)
    await server.start(built)
    try:
        yield Serving(events, sessions, server, built, metrics)
    finally:
        await server.stop()
