"""Deliveries and memory of an SSE server with many connections: the gateway's hub, and sse-starlette with a queue a client.

`python -m bench.sse_clients [--connections 1000] [--server hub|starlette|both]`. The server runs in a process of its own
and publishes by itself; the clients are raw sockets in this process, which count `id:` lines. Figures are of the server's
process: events delivered a second of wall time and of CPU time, and resident memory a connection. Both are told to
publish in the same way: events one after the other, each after the one before was handed over.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from chassis.clock import SystemClock
from chassis.config import Config, Gateway
from chassis.context import Caller
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from gateway.server import GatewayServer
from gateway.sse.handler import EventStreams
from gateway.sse.hub import Hub
from gateway.sse.measures import StreamMeasures
from gateway.sse.module import SUBSCRIBE_PATH
from tests.support.events import EventsUpstream, FakeEvents

_SECONDS: Final = 5.0
_DATA: Final = "x" * 100
_CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Figures:
    deliveries: float
    per_cpu: float
    idle_kib: float
    stalled_kib: float


class _Anybody:
    def verify(self, authorization: str) -> Caller:
        del authorization
        return Caller("acme", "bench", frozenset({"events:read"}), 4e9)


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def _hub(pipe: Connection) -> None:
    events, clock, metrics = FakeEvents(), SystemClock(), Metrics()
    config = Config(gateway=Gateway(port=0, max_connections=100_000, max_streams=100_000, tenant_streams=100_000))
    measures = StreamMeasures(metrics)
    hub = Hub(
        config.gateway,
        subscribe=events.subscribe,
        list_events=events.list_events,
        credential=lambda tenant: (("authorization", f"Bearer {tenant}"),),
        life=3600.0,
        clock=clock,
        random=lambda: 0.5,
        measures=measures,
    )
    gateway = build(
        config,
        clock=clock,
        verifier=_Anybody(),
        metrics=metrics,
        upstreams={"events": EventsUpstream(events)},
        random_bytes=os.urandom,
        handlers={SUBSCRIBE_PATH: EventStreams(hub, measures)},
    )
    server = GatewayServer(config.gateway)
    await server.start(gateway)

    async def publish() -> None:
        events.publish(data=_DATA)
        await asyncio.sleep(0)

    await _obey(pipe, server.port, "/api/v2/events/stream", publish, lambda: len(hub))
    await hub.close()
    await server.stop()


async def _starlette(pipe: Connection) -> None:
    from sse_starlette import EventSourceResponse, ServerSentEvent  # noqa: PLC0415 - the gateway's side runs without
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    queues: set[asyncio.Queue[ServerSentEvent]] = set()

    async def stream(request: Request) -> EventSourceResponse:
        del request
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue(256)

        async def follow() -> AsyncIterator[ServerSentEvent]:
            queues.add(queue)
            try:
                while True:
                    yield await queue.get()
            finally:
                queues.discard(queue)

        return EventSourceResponse(follow(), ping=15)

    app = Starlette(routes=[Route("/stream", stream)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = uvicorn.Server(
        uvicorn.Config(app, http="httptools", loop="none", log_config=None, access_log=False, lifespan="off")
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    number = 0

    async def publish() -> None:
        nonlocal number
        if any(queue.full() for queue in queues):
            await asyncio.sleep(0)
            return
        number += 1
        document = {"specversion": "1.0", "id": str(number), "source": "/bas/devices", "type": "device.online"}
        document |= {"subject": "devices/d1", "sequence": str(number), "tenantid": "acme", "data": _DATA}
        event = ServerSentEvent(json.dumps(document), event="device.online", id=f"e1.{number}.AAAAAAAAAAAA")
        for queue in queues:
            queue.put_nowait(event)
        await asyncio.sleep(0)

    await _obey(pipe, listener.getsockname()[1], "/stream", publish, lambda: len(queues))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _obey(pipe: Connection, port: int, path: str, publish: Any, count: Any) -> None:
    """Commands: `count`, `memory`, a number of seconds to publish for, `stop`."""
    pipe.send((port, path))
    loop = asyncio.get_running_loop()
    while True:
        command = await loop.run_in_executor(None, pipe.recv)
        if command == "count":
            pipe.send(count())
        elif command == "memory":
            pipe.send(_resident())
        elif command == "stop":
            return
        else:
            cpu, end, sent = time.process_time(), loop.time() + command, 0
            while loop.time() < end:
                await publish()
                sent += 1
            pipe.send((sent, time.process_time() - cpu))


def _serve(which: str, pipe: Connection) -> None:
    uvloop.run({"hub": _hub, "starlette": _starlette}[which](pipe))


class _Clients:
    """Raw sockets that count events. The first `stalled` of them are never read."""

    def __init__(self, port: int, path: str) -> None:
        self._address = ("127.0.0.1", port)
        self._request = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n\r\n".encode()
        self._selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []
        self.received = 0

    def connect(self, count: int, *, read: bool = True) -> None:
        for _ in range(count):
            sock = socket.create_connection(self._address)
            sock.sendall(self._request)
            sock.setblocking(False)
            self.sockets.append(sock)
            if read:
                self._selector.register(sock, selectors.EVENT_READ)

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                sock: Any = key.fileobj
                try:
                    data = sock.recv(_CHUNK)
                except OSError:
                    data = b""
                if not data:
                    self._selector.unregister(sock)
                    continue
                self.received += data.count(b"\nevent: ")

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self._selector.close()


def measure(which: str, connections: int) -> Figures:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=_serve, args=(which, there), daemon=True)
    server.start()
    port, path = here.recv()

    def ask(command: object) -> Any:
        here.send(command)
        return here.recv()

    clients = _Clients(port, path)
    clients.connect(50)
    clients.read(1.0)
    base = ask("memory")
    clients.connect(connections)
    while ask("count") < connections + 50:
        clients.read(0.2)
    clients.read(1.0)
    idle = (ask("memory") - base) / connections
    here.send(_SECONDS)
    begun = time.monotonic()
    while not here.poll():
        clients.read(0.2)
    sent, cpu = here.recv()
    clients.read(2.0)
    elapsed = time.monotonic() - begun - 2.0
    received = clients.received
    stalled = 50
    before = ask("memory")
    clients.connect(stalled, read=False)
    here.send(2.0)
    while not here.poll():
        clients.read(0.2)
    here.recv()
    held = (ask("memory") - before) / stalled
    here.send("stop")
    clients.close()
    server.join(20)
    if server.is_alive():
        server.terminate()
    print(f"{which}: {sent} events to {connections + 50} connections, {received} deliveries", file=sys.stderr)
    return Figures(received / elapsed, received / cpu, idle / 1024, held / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--server", choices=("hub", "starlette", "both"), default="both")
    asked = parser.parse_args()
    servers = ("hub", "starlette") if asked.server == "both" else (asked.server,)
    for which in servers:
        figures = measure(which, asked.connections)
        print(
            f"{which}: {figures.deliveries:,.0f} deliveries/s, {figures.per_cpu:,.0f} a CPU second, "
            f"{figures.idle_kib:.1f} KiB an idle connection, {figures.stalled_kib:.1f} KiB a stalled one"
        )


if __name__ == "__main__":
    main()
