"""The real processes of the platform and of the baselines, on free ports over a folder that is thrown away."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from bench import http
from bench.processes import ROOT, Server, free_port, listening, start
from launcher.valkey import EmbeddedValkey

TENANT = "bench"
_DEADLINE = 5.0


@dataclass
class Platform:
    """Addresses, a token, and the processes whose CPU is counted."""

    grpc_port: int
    sessions_port: int
    users_port: int
    http_port: int
    echo_port: int
    baseline_port: int
    token: str
    devices: Server
    sessions: Server
    users: Server
    gateway: Server
    echo: Server
    baseline: Server
    folder: Path
    cache_url: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


@asynccontextmanager
async def platform(folder: Path, echo_size: int) -> AsyncIterator[Platform]:
    """Start everything, wait until it answers, and stop it all."""
    valkey = EmbeddedValkey(folder / "valkey")
    await valkey.start()
    ports = [free_port() for _ in range(10)]
    env = {
        "BAS_DATA_DIR": str(folder),
        "BAS_REDIS_URL": valkey.url,
        "BAS_DEVICES_PORT": str(ports[0]),
        "BAS_DEVICES_METRICS_PORT": str(ports[1]),
        "BAS_GATEWAY_PORT": str(ports[2]),
        "BAS_SESSIONS_PORT": str(ports[6]),
        "BAS_SESSIONS_METRICS_PORT": str(ports[7]),
        "BAS_USERS_PORT": str(ports[8]),
        "BAS_USERS_METRICS_PORT": str(ports[9]),
        "BAS_LIMITS_RATE": "1000000",
        "BAS_LIMITS_BURST": "1000000",
        # What they can do is measured, and not what they refuse.
        "BAS_SHED_ENABLED": "false",
    }
    log = folder / "bench.log"
    servers = {
        "devices": start("devices", "launcher.main", "serve", "devices", env=env, log=log),
        "sessions": start("sessions", "launcher.main", "serve", "sessions", env=env, log=log),
        "users": start("users", "launcher.main", "serve", "users", env=env, log=log),
        "gateway": start("gateway", "launcher.main", "serve", "gateway", env=env, log=log),
        "echo": start("echo", "bench.baselines.echo", str(ports[3]), str(echo_size), env={}, log=log),
        "baseline": start("baseline", "bench.baselines.rest", str(ports[4]), f"127.0.0.1:{ports[0]}", env={}, log=log),
    }
    try:
        listeners = {"devices": 0, "gateway": 2, "echo": 3, "baseline": 4, "sessions": 6, "users": 8}
        for name, at in listeners.items():
            await listening(ports[at], servers[name])
        yield Platform(
            grpc_port=ports[0],
            sessions_port=ports[6],
            users_port=ports[8],
            http_port=ports[2],
            echo_port=ports[3],
            baseline_port=ports[4],
            # The keys are there once the servers are.
            token=issue(env, TENANT),
            folder=folder,
            cache_url=valkey.url,
            **servers,
        )
    finally:
        for server in servers.values():
            server.stop()
        await valkey.stop()


def issue(env: dict[str, str], tenant: str) -> str:
    """A token of a tenant, by the keys that the environment names, for all that the benchmark does."""
    command = [sys.executable, "-m", "launcher.main", "token", "--tenant", tenant, "--ttl", "12h"]
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, env=env | path, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


class GrpcCaller:
    """Raw unary calls over a few channels, with the metadata and the deadline of a real caller."""

    def __init__(self, port: int, method: str, metadata: Sequence[tuple[str, str]], channels: int = 2) -> None:
        # A channel of its own for each: by default they would share one TCP connection.
        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(channels)
        ]
        self._calls: list[Any] = [channel.unary_unary(method) for channel in self._channels]
        self._metadata = tuple(metadata)

    async def call(self, number: int, request: bytes) -> bytes:
        answer: bytes = await self._calls[number % len(self._calls)](
            request, metadata=self._metadata, timeout=_DEADLINE
        )
        return answer

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))


class HttpCaller:
    """One keep-alive connection a caller, opened when it is first used."""

    def __init__(self, port: int, expect: int = 200) -> None:
        self._port = port
        self._expect = expect
        self._connections: dict[int, http.Connection] = {}

    async def call(self, number: int, request: bytes) -> bytes:
        connection = self._connections.get(number)
        if connection is None:
            connection = self._connections[number] = await http.connect("127.0.0.1", self._port)
        try:
            status, body = await asyncio.wait_for(connection.send(request), _DEADLINE)
        except OSError:
            del self._connections[number]
            raise
        if status != self._expect:
            raise RuntimeError(f"{status}: {body[:200]!r}")
        return body

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
