"""A gateway over real HTTP before a device service that keeps its devices in a dict."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import pytest_asyncio

from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Config, Deadline, Gateway, Grpc, Seconds
from chassis.context import Caller
from chassis.errors import unauthenticated
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from gateway.server import GatewayServer
from gateway.upstream import ServiceUpstream
from tests.integration.gateway.fake_devices import DeviceServer, FakeDevices, serve_devices
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.valkey import own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]

TOKEN = "Bearer good"


class OneToken:
    """Knows the token `good` and no other."""

    def verify(self, authorization: str) -> Caller:
        if not authorization:
            raise unauthenticated("TOKEN_MISSING", "A credential is required.")
        if authorization != TOKEN:
            raise unauthenticated("TOKEN_INVALID", "The token is not valid.")
        return Caller("acme", "tester", frozenset({"devices:admin"}), 4e9)


def counted_bytes() -> Callable[[int], bytes]:
    counter = itertools.count(1)
    return lambda length: next(counter).to_bytes(length, "big")


class Running:
    """A gateway, its device service, and how to reach both."""

    def __init__(
        self, devices: FakeDevices, device_server: DeviceServer, server: GatewayServer, metrics: Metrics
    ) -> None:
        self.devices = devices
        self.device_server = device_server
        self.server = server
        self.metrics = metrics
        self.url = f"http://127.0.0.1:{server.port}"

    def client(self, **headers: str) -> httpx.AsyncClient:
        given = {"authorization": TOKEN, **patience.HEADERS} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return httpx.AsyncClient(base_url=self.url, headers=given, timeout=patience.CLIENT)


async def exchange(port: int, sent: bytes, *, within: float = 30.0) -> bytes:
    """All that the server answers to raw bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(within):
            writer.write(sent)
            return await reader.read()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


MAX_BODY = 64 * 1024


def upstream(port: int, metrics: Metrics, deadline: Deadline = patience.DEADLINE) -> ServiceUpstream:
    """A service that listens on a port of this machine."""
    return ServiceUpstream(
        Client(
            f"127.0.0.1:{port}",
            config=Grpc(),
            deadline=deadline,
            metrics=metrics,
            clock=SystemClock(),
            random=lambda: 0.5,
        )
    )


@asynccontextmanager
async def serve(
    devices: FakeDevices,
    *,
    body_seconds: float = 10.0,
    max_connections: int = 1000,
    deadline: Deadline = patience.DEADLINE,
) -> AsyncIterator[Running]:
    """A gateway before `devices`, on free ports."""
    config = Config(
        deadline=deadline,
        gateway=Gateway(
            port=0,
            max_body=MAX_BODY,
            max_connections=max_connections,
            body_timeout=Seconds(body_seconds),
            cors_origins=("https://app.example",),
        ),
    )
    metrics = Metrics()
    async with serve_devices(devices) as device_server:
        gateway = build(
            config,
            clock=SystemClock(),
            verifier=OneToken(),
            metrics=metrics,
            upstreams={"devices": upstream(device_server.port, metrics, deadline)},
            random_bytes=counted_bytes(),
        )
        server = GatewayServer(config.gateway)
        await server.start(gateway)
        try:
            await eventually(lambda: not gateway.readiness.waiting(), "the gateway reaches its services")
            yield Running(devices, device_server, server, metrics)
        finally:
            devices.release.set()
            await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Running]:
    """One gateway for the tests of a module, which all run in its loop."""
    async with serve(FakeDevices()) as made:
        yield made


@pytest.fixture
def running(shared: Running) -> Running:
    """The gateway of the module with no device and nothing remembered."""
    shared.devices.reset()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client
