"""The events service over a real server, called as the chain calls it: the rules at the fields first."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import (
    ListEventsRequest,
    ListEventsResponse,
    PublishEventsRequest,
    PublishEventsResponse,
)
from chassis import context
from chassis.api.validation import compile_validator
from chassis.clock import Clock, SystemClock
from chassis.config import Config, Events, Seconds
from chassis.context import Call, Caller
from chassis.module import Parts, ServiceModule
from chassis.resilience.breaker import Guard
from chassis.telemetry.metrics import Metrics
from services.events.module import build
from services.events.servicer import EventServicer
from services.events.sweep import Sweep
from tests.integration.sessions.conftest import secret
from tests.support import patience
from tests.support.memory_cache import MemoryCache

_publishable = compile_validator(PublishEventsRequest.DESCRIPTOR)
_listable = compile_validator(ListEventsRequest.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class Api:
    """One replica of the service."""

    module: ServiceModule

    async def publish(self, events: Sequence[CloudEvent], tenant: str = "acme") -> PublishEventsResponse:
        request = PublishEventsRequest(events=events)
        _publishable(request)
        with acting(tenant):
            return await self._servicer.PublishEvents(request)

    async def list(self, tenant: str = "acme", **fields: Any) -> ListEventsResponse:
        request = ListEventsRequest(**fields)
        _listable(request)
        with acting(tenant):
            return ListEventsResponse.FromString(await self._servicer.ListEvents(request))

    @property
    def sweep(self) -> Sweep:
        """The sweep of this replica, to be run a shard at a time."""
        owners = (getattr(each.run, "__self__", None) for each in self.module.background)
        return next(owner for owner in owners if isinstance(owner, Sweep))

    @property
    def _servicer(self) -> EventServicer:
        assert isinstance(self.module.servicer, EventServicer)
        return self.module.servicer


@contextmanager
def acting(tenant: str) -> Iterator[None]:
    caller = Caller(tenant, "tester", frozenset({"events:read", "events:write"}), 4e9)
    token = context.enter(Call("test", "r1", SystemClock().monotonic() + 600, caller))
    try:
        yield
    finally:
        context.leave(token)


@asynccontextmanager
async def replica(
    url: str,
    *,
    clock: Clock | None = None,
    log_clock: Clock | None = None,
    guard: Guard | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
    **settings: Any,
) -> AsyncIterator[Api]:
    """One more process of the service; settings are those of `Events`. Nothing of its background runs."""
    events = Events(**{"log_timeout": Seconds(10), "shards": 2, **settings})
    config = replace(Config(), events=events, redis=patience.cache_at(url))
    clock = clock or SystemClock()
    parts = Parts(clock, None, MemoryCache(clock), Metrics(), random_bytes, secret)  # type: ignore[arg-type]
    module = build(config, parts, guard=guard, log_clock=log_clock)
    try:
        yield Api(module)
    finally:
        assert module.close is not None
        await module.close()


def event(name: object, kind: str = "thing.made", **fields: Any) -> CloudEvent:
    return CloudEvent(**{"id": str(name), "source": "/test", "type": kind, **fields})


def large(name: object, size: int = 60_000, kind: str = "thing.made") -> CloudEvent:
    made = event(name, kind)
    made.data.string_value = "x" * size
    return made
