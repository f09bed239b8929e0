"""The events service as its process runs it, and clients of its streams over the network."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import (
    PublishEventsRequest,
    PublishEventsResponse,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from bas.events.v2.events_service_pb2_grpc import EventServiceStub
from chassis.api.validation import compile_validator
from chassis.auth import keys, tokens
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Deadline, Events, Grpc, Seconds
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.module import Parts, ServiceModule
from chassis.runtime import Services
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from services.events.module import build
from tests.integration.sessions.conftest import secret
from tests.support import patience
from tests.support.memory_cache import MemoryCache

BOUND = 30.0
"""Seconds after which something that should come is missed."""


class Stream:
    """A stream that is read in the background, all of it, or one message at a time."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.messages: list[SubscribeEventsResponse] = []

    async def next(self) -> SubscribeEventsResponse:
        message: Any = await asyncio.wait_for(self.call.read(), BOUND)
        assert message is not grpc.aio.EOF, "the stream has ended"
        self.messages.append(message)
        return self.messages[-1]

    async def event(self) -> str:
        """The id of the next event, past heartbeats."""
        while True:
            message = await self.next()
            if message.HasField("event"):
                return message.event.event.id
            assert message.HasField("heartbeat"), message

    async def until(self, kind: str) -> SubscribeEventsResponse:
        """The next message of a kind."""
        while True:
            message = await self.next()
            if message.HasField(kind):  # type: ignore[arg-type]
                return message

    async def ended(self) -> None:
        """The end of the stream, in order."""
        assert await asyncio.wait_for(self.call.read(), BOUND) is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK


class Serving:
    """One process of the service."""

    def __init__(self, services: Services, server: GrpcServer, channel: grpc.aio.Channel, held: Any) -> None:
        self.services = services
        self.server = server
        self.channel = channel
        self.stub: Any = EventServiceStub(channel)
        self._held = held

    def bearer(
        self, tenant: str = "acme", *, subject: str = "ada", session_id: str = "", ttl: float = 3600
    ) -> tuple[tuple[str, str], ...]:
        grant = Grant(tenant, subject, ("events:write",), ttl, session_id)
        token = tokens.mint(self._held, Auth(), grant, SystemClock().now())
        return (("authorization", f"Bearer {token}"),)

    def subscribe(self, *, who: Any = None, **request: Any) -> Stream:
        return Stream(self.stub.SubscribeEvents(SubscribeEventsRequest(**request), metadata=who or self.bearer()))

    async def publish(self, *events: CloudEvent, who: Any = None) -> PublishEventsResponse:
        response: PublishEventsResponse = await self.stub.PublishEvents(
            PublishEventsRequest(events=events), metadata=who or self.bearer(), timeout=patience.CALL
        )
        return response


def event(
    name: str | int, kind: str = "thing.made", subject: str = "", source: str = "/test", size: int = 0
) -> CloudEvent:
    made = CloudEvent(id=str(name), source=source, type=kind, subject=subject)
    if size:
        made.data.string_value = "x" * size
    return made


@asynccontextmanager
async def serving(url: str, *, make: Callable[..., ServiceModule] = build, **settings: Any) -> AsyncIterator[Serving]:
    """The service on the log at `url`; settings are those of `Events`."""
    clock = SystemClock()
    with TemporaryDirectory() as folder:
        held = keys.load_or_create(Path(folder) / "keys.json", os.urandom)
    events = Events(**{"log_timeout": Seconds(10), "shards": 2, **settings})
    config = replace(Config(), events=events, redis=patience.cache_at(url), grpc=Grpc(drain=Seconds(60)))
    parts = Parts(clock, None, MemoryCache(clock), Metrics(), os.urandom, secret)  # type: ignore[arg-type]
    module = make(config, parts)
    gate = Gate(Verifier(held, Auth(), clock), clock, Deadline(), os.urandom)
    chain = ServerChain(gate, parts.metrics, compile_validator)
    server = GrpcServer([module], chain, config.grpc, host="127.0.0.1", port=0, setting="BAS_EVENTS_PORT")
    services = Services("events", [module], server, clock=clock, random=lambda: 0.5)
    await services.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Serving(services, server, channel, held)
    finally:
        await services.stop()
