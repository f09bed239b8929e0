"""A gateway over real HTTP before a device service that keeps its devices in a dict."""

import itertools
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from chassis.clock import SystemClock
from chassis.config import Config, Gateway
from chassis.context import Caller
from chassis.errors import unauthenticated
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from gateway.server import GatewayServer
from tests.integration.gateway.fake_devices import FakeDevices, serve_devices

TOKEN = "Bearer good"


class OneToken:
    """Knows the token `good`, and that one has expired."""

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

    def __init__(self, devices: FakeDevices, server: GatewayServer, metrics: Metrics) -> None:
        self.devices = devices
        self.server = server
        self.metrics = metrics
        self.url = f"http://127.0.0.1:{server.port}"

    def client(self, **headers: str) -> httpx.AsyncClient:
        given = {"authorization": TOKEN} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.AsyncClient(base_url=self.url, headers=given, timeout=10)


MAX_BODY = 64 * 1024


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    config = Config(gateway=Gateway(port=0, max_body=MAX_BODY, cors_origins=("https://app.example",)))
    devices = FakeDevices()
    metrics = Metrics()
    async with serve_devices(devices) as upstream:
        gateway = build(
            config,
            clock=SystemClock(),
            verifier=OneToken(),
            metrics=metrics,
            upstreams={"devices": upstream},
            random_bytes=counted_bytes(),
        )
        server = GatewayServer(config.gateway)
        await server.start(gateway)
        try:
            yield Running(devices, server, metrics)
        finally:
            await server.stop()


@pytest.fixture
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client
