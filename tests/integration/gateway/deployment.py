"""Gateways before the real sessions service (SQLite and Valkey, behind the real server chain) and a device service that
keeps what it was told."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from chassis.api.validation import compile_validator
from chassis.auth import keys, tokens
from chassis.auth.tokens import ALL_SCOPES, Grant
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Gateway, Grpc
from chassis.context import Caller
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from gateway.module import Gateway as Built
from gateway.module import build
from gateway.server import GatewayServer
from tests.integration.gateway.conftest import MAX_BODY, upstream
from tests.integration.gateway.fake_devices import DeviceServer, FakeDevices, serve_devices
from tests.integration.sessions.conftest import Sessions, opened, replica
from tests.support import patience
from tests.support.eventually import eventually


class SignedIn:
    """The parts of a deployment with `len(urls)` gateways."""

    def __init__(
        self,
        held: keys.KeySet,
        sessions: Sessions,
        server: GrpcServer,
        devices: FakeDevices,
        device_server: DeviceServer,
    ) -> None:
        self.keys = held
        self.sessions = sessions
        self.server = server
        self.devices = devices
        self.device_server = device_server
        self.urls: list[str] = []
        self.clients: list[httpx.AsyncClient] = []

    @property
    def http(self) -> httpx.AsyncClient:
        return self.clients[0]

    def caller(self, tenant: str = "acme", *scopes: str) -> dict[str, str]:
        """Headers with a caller token."""
        grant = Grant(tenant, "backend", scopes or ALL_SCOPES)
        return {"authorization": f"Bearer {tokens.mint(self.keys, Auth(), grant, SystemClock().now())}"}

    async def sign_in(self, user: str = "ada", *scopes: str, tenant: str = "acme", **more: Any) -> tuple[str, str]:
        """A session's id and its token, made by a backend over REST."""
        session = {"userId": user, "scopes": scopes or ["devices:write"], **more}
        answer = await self.http.post("/api/sessions", json=session, headers=self.caller(tenant))
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return made["session"]["sessionId"], made["token"]

    async def revoke(self, session_id: str, client: httpx.AsyncClient | None = None) -> None:
        answer = await (client or self.http).delete(f"/api/sessions/{session_id}", headers=self.caller())
        assert answer.status_code == 204, answer.text

    def seen(self) -> Caller:
        """Who the device service was told that its last caller is."""
        return self.said_by(self.devices.metadata[-1])

    def said_by(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """The caller that the metadata of a call names."""
        token = str(metadata["authorization"]).removeprefix("Bearer ")
        return tokens.verify(token, self.keys, Auth(), SystemClock().now())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _reaches_all(gateway: Built) -> bool:
    return not gateway.readiness.waiting()


@asynccontextmanager
async def deployment(folder: Path, valkey_url: str, gateways: int = 1) -> AsyncIterator[SignedIn]:
    clock = SystemClock()
    held = keys.load_or_create(folder / "keys.json", os.urandom)
    devices = FakeDevices()
    async with AsyncExitStack() as running:
        store = await running.enter_async_context(opened(folder / "sessions.db"))
        sessions = await running.enter_async_context(replica(store, valkey_url, clock))
        gate = Gate(Verifier(held, Auth(), clock), clock, patience.DEADLINE, os.urandom)
        server = GrpcServer(
            [sessions.module],
            ServerChain(gate, Metrics(), compile_validator),
            Grpc(),
            host="127.0.0.1",
            port=0,
            setting="BAS_SESSIONS_PORT",
        )
        await server.start()
        running.push_async_callback(server.stop)
        server.health.set_all(SERVING)
        device_server = await running.enter_async_context(serve_devices(devices))
        made = SignedIn(held, sessions, server, devices, device_server)
        for _ in range(gateways):
            metrics = Metrics()
            config = Config(
                deadline=patience.DEADLINE,
                gateway=Gateway(port=0, max_body=MAX_BODY * 64, cors_origins=("https://app.example",)),
            )
            listening = GatewayServer(config.gateway)
            gateway = build(
                config,
                clock=clock,
                verifier=Verifier(held, Auth(), clock),
                metrics=metrics,
                upstreams={
                    "devices": upstream(device_server.port, metrics),
                    "sessions": upstream(server.port, metrics),
                },
                random_bytes=os.urandom,
                issue=lambda grant: tokens.mint(held, Auth(), grant, clock.now()),
            )
            await listening.start(gateway)
            running.push_async_callback(listening.stop)
            await eventually(partial(_reaches_all, gateway), "the gateway reaches its services")
            url = f"http://127.0.0.1:{listening.port}"
            client = httpx.AsyncClient(base_url=url, timeout=patience.CLIENT, headers=patience.HEADERS)
            running.push_async_callback(client.aclose)
            made.urls.append(url)
            made.clients.append(client)
        yield made
