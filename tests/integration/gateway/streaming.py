"""Gateways before services that answer with streams, and clients that read what comes as they like."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from chassis.clock import SystemClock
from chassis.config import Config, Gateway
from chassis.context import Caller
from chassis.errors import unauthenticated
from chassis.telemetry.metrics import Metrics
from gateway.module import Gateway as Built
from gateway.module import build
from gateway.server import GatewayServer
from gateway.sse.port import StreamHandler
from tests.integration.gateway.conftest import counted_bytes, upstream
from tests.integration.gateway.fake_streams import FakeStreams
from tests.support import patience

EXPORT_PATH = "/api/audit/entries:export"
SUBSCRIBE_PATH = "/api/events/stream"


class TokensByTenant:
    """`Bearer <tenant>` is that tenant's, with all scopes; `Bearer <tenant>-none` has none."""

    def verify(self, authorization: str) -> Caller:
        tenant = authorization.removeprefix("Bearer ")
        if not tenant:
            raise unauthenticated("TOKEN_MISSING", "A credential is required.")
        scopes = frozenset() if tenant.endswith("-none") else frozenset({"audit:read", "events:read"})
        return Caller(tenant, "tester", scopes, 4e9)


@dataclass
class Running:
    services: FakeStreams
    server: GatewayServer
    built: Built
    metrics: Metrics

    def client(self, tenant: str = "acme", **headers: str) -> httpx.AsyncClient:
        given = {"authorization": f"Bearer {tenant}"} | {key.replace("_", "-"): text for key, text in headers.items()}
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.server.port}", headers=given, timeout=patience.CLIENT
        )

    def handled(self, code: str, method: str = "ExportEntries", service: str = "bas.audit.v2.AuditService") -> float:
        labels = {
            "grpc_type": "server_stream",
            "grpc_service": service,
            "grpc_method": method,
            "grpc_code": code,
        }
        return self.metrics.registry.get_sample_value("grpc_client_handled_total", labels) or 0.0


@asynccontextmanager
async def gateway(
    services: FakeStreams, handlers: Mapping[str, StreamHandler] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """`settings` are the gateway's."""
    fixed: dict[str, Any] = {"port": 0, "cors_origins": ("https://app.example",)}
    config = Config(gateway=Gateway(**fixed | settings))
    metrics = Metrics()
    built = build(
        config,
        clock=SystemClock(),
        verifier=TokensByTenant(),
        metrics=metrics,
        upstreams={name: upstream(services.port, metrics) for name in ("audit", "events")},
        random_bytes=counted_bytes(),
        handlers=handlers,
    )
    server = GatewayServer(config.gateway)
    await server.start(built)
    try:
        yield Running(services, server, built, metrics)
    finally:
        await server.stop()


class RawReader:
    """A client that reads no byte more than it is asked to: the kernel holds little for it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, most: int) -> bytes:
        """b"" at the end, however that came."""
        async with asyncio.timeout(patience.CLIENT):
            with suppress(ConnectionError):
                return await self._loop.sock_recv(self._sock, most)
        return b""

    async def rest(self) -> bytes:
        chunks = []
        while chunk := await self.read(1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)


@asynccontextmanager
async def asked(running: Running, path: str, tenant: str = "acme", accept: str = "*/*") -> AsyncIterator[RawReader]:
    """A request whose answer nobody reads yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant}\r\nAccept: {accept}\r\n\r\n"
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", running.server.port))
        await loop.sock_sendall(sock, head.encode())
        yield RawReader(sock)
    finally:
        sock.close()


def unchunked(raw: bytes) -> tuple[bytes, list[bytes], bool]:
    """Head, chunks, and whether the answer came to its end."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    chunks: list[bytes] = []
    for _ in itertools.count():
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            return head, chunks, False
        length = int(size, 16)
        if length == 0:
            return head, chunks, True
        if len(rest) < length + 2:
            return head, chunks, False
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    raise AssertionError
