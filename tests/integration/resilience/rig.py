"""A server that fails as it is told and counts what reaches it, and clients that call it through the client chain."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from chassis.channel import Client
from chassis.clock import Clock, SystemClock
from chassis.config import Deadline, Grpc, Seconds
from chassis.config import Retry as Settings
from chassis.policies import Policy, Retry
from chassis.resilience.breaker import Guard
from chassis.resilience.lag import never_late
from chassis.telemetry.metrics import Metrics
from tests.support.eventually import eventually

PATH = "/bas.resiliencetest.v2.Backend/Ask"
SAFE = Policy(scope="", retry=Retry.SAFE, default_deadline=60.0, max_deadline=60.0)
EAGER = Settings(attempts=2, share=1.0, floor=1000, backoff=Seconds(0.001))
"""As many retries as a call may have."""


class Backend:
    """`act` is awaited with each call; its attempts are counted by what they ask for."""

    def __init__(self, act: Callable[[Any], Awaitable[bytes]]) -> None:
        self.act = act
        self.health = health_pb2.HealthCheckResponse.SERVING
        self.attempts: Counter[bytes] = Counter()
        self.marks: list[str | None] = []
        self.port = 0
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def ask(self, request: bytes, rpc: Any) -> bytes:
        self.attempts[request] += 1
        self.marks.append(dict(rpc.invocation_metadata()).get("bas-attempt"))
        self.entered.set()
        try:
            return await self.act(rpc)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def check(self, _request: bytes, _rpc: Any) -> bytes:
        answer: bytes = health_pb2.HealthCheckResponse(status=self.health).SerializeToString()
        return answer

    @property
    def total(self) -> int:
        return self.attempts.total()


def refuse(code: grpc.StatusCode, trailers: tuple[tuple[str, str], ...] = ()) -> Callable[[Any], Awaitable[bytes]]:
    """A status without details of ours, as a server that goes down gives, or something between."""

    async def act(rpc: Any) -> bytes:
        await rpc.abort(code, "no", trailers)
        raise AssertionError

    return act


async def hang(_rpc: Any) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def well(_rpc: Any) -> bytes:
    return b"well"


@asynccontextmanager
async def serving(act: Callable[[Any], Awaitable[bytes]]) -> AsyncIterator[Backend]:
    backend = Backend(act)
    server = grpc.aio.server()
    service, _, method = PATH[1:].rpartition("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(backend.ask)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    check: Any = grpc.unary_unary_rpc_method_handler(backend.check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),))
    backend.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield backend
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(
    port: int,
    retry: Settings = EAGER,
    guard: Guard | None = None,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    late: Callable[[float], bool] = never_late,
) -> AsyncIterator[Client]:
    client = Client(
        f"127.0.0.1:{port}",
        config=Grpc(),
        deadline=Deadline(),
        metrics=metrics or Metrics(),
        clock=clock or SystemClock(),
        random=lambda: 0.5,
        retry=retry,
        guard=guard,
        late=late,
    )
    try:
        # What fails is to be the server, and not the way to it.
        await eventually(lambda: bool(client._channel._usable), "connected")
        yield client
    finally:
        await client.close()
