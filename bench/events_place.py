"""The processes of the events part: the log, the events service, gateways, devices with and without side effects, and the
naive server beside them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import http
from bench.platform import TENANT, issue
from bench.processes import Observed, Server, free_port, listening, start
from launcher.valkey import EmbeddedValkey

QUIET: Final = "quiet"
"""A tenant to whom nothing happens."""
HEARTBEAT: Final = 1.0
"""Seconds: the setting of the gateway that heartbeats are measured at."""


@dataclass
class Place:
    """Ports, tokens, and the processes whose CPU and memory are counted."""

    events_port: int
    gateway_port: int
    beating_port: int
    devices_port: int
    devices_metrics: int
    plain_port: int
    naive_port: int
    token: str
    quiet_token: str
    log: Observed
    events: Server
    gateway: Server
    beating: Server
    devices: Server
    plain: Server
    naive: Server
    folder: Path

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


STREAM: Final = "/api/v2/events/stream"
_TRIES: Final = 20


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """Start everything, wait until it answers, and stop it all. `plain` is a devices service of a deployment without
    events."""
    folder.mkdir()  # noqa: ASYNC240 - nobody else waits
    valkey = EmbeddedValkey(folder / "valkey", max_memory=1 << 30)
    await valkey.start()
    names = ("events", "gateway", "beating", "devices", "plain", "naive")
    ports = {name: free_port() for name in names}
    metrics = {name: free_port() for name in ("events", "devices", "plain")}
    env = {
        "BAS_DATA_DIR": str(folder),
        "BAS_REDIS_URL": valkey.url,
        "BAS_EVENTS_PORT": str(ports["events"]),
        "BAS_EVENTS_METRICS_PORT": str(metrics["events"]),
        "BAS_EVENTS_PUBLISH_RATE": "1000000",
        "BAS_EVENTS_PUBLISH_BYTES": str(1 << 30),
        "BAS_DEVICES_PORT": str(ports["devices"]),
        "BAS_DEVICES_METRICS_PORT": str(metrics["devices"]),
        "BAS_GATEWAY_PORT": str(ports["gateway"]),
        "BAS_GATEWAY_SERVICES": "devices,events",
        "BAS_LIMITS_RATE": "1000000",
        "BAS_LIMITS_BURST": "1000000",
        # What they can do is measured, and not what they refuse.
        "BAS_SHED_ENABLED": "false",
    }
    beating = {"BAS_GATEWAY_PORT": str(ports["beating"]), "BAS_GATEWAY_STREAM_HEARTBEAT": f"{HEARTBEAT:g}s"}
    plain = {
        "BAS_DEVICES_PORT": str(ports["plain"]),
        "BAS_DEVICES_METRICS_PORT": str(metrics["plain"]),
        "BAS_GATEWAY_SERVICES": "devices",
        "BAS_STORE_URL": f"sqlite:///{folder / 'plain.db'}",
    }
    log = folder / "bench.log"

    def serve(name: str, target: str, more: dict[str, str]) -> Server:
        return start(name, "launcher.main", "serve", target, env=env | more, log=log)

    servers = {
        "events": serve("events", "events", {}),
        "gateway": serve("gateway", "gateway", {}),
        "beating": serve("beating", "gateway", beating),
        "devices": serve("devices", "devices", {}),
        "plain": serve("plain", "devices", plain),
        "naive": start("naive", "bench.baselines.sse", str(ports["naive"]), env={}, log=log),
    }
    try:
        for name, server in servers.items():
            await listening(ports[name], server)
        assert valkey.pid is not None
        # The keys are there once the servers are.
        tokens = {tenant: issue(env, tenant) for tenant in (TENANT, QUIET)}
        for name in ("gateway", "beating"):
            for token in tokens.values():
                await _streaming(ports[name], token)
        yield Place(
            events_port=ports["events"],
            gateway_port=ports["gateway"],
            beating_port=ports["beating"],
            devices_port=ports["devices"],
            devices_metrics=metrics["devices"],
            plain_port=ports["plain"],
            naive_port=ports["naive"],
            token=tokens[TENANT],
            quiet_token=tokens[QUIET],
            log=Observed("valkey", valkey.pid),
            **servers,
            folder=folder,
        )
    finally:
        for server in servers.values():
            server.process.terminate()
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers.values()))
        await valkey.stop()


async def _streaming(port: int, token: str) -> None:
    """Return once a stream is answered as one: the gateway has reached the events service. Raises RuntimeError."""
    begun = b""
    for _ in range(_TRIES):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(http.request("GET", STREAM, "bench", token))
        async with asyncio.timeout(10):
            begun = await reader.readuntil(b"\r\n\r\n") + await reader.readuntil(b"\n\n")
        writer.close()
        if b"event: end" not in begun:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"no stream is opened: {begun!r}")
