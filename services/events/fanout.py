"""From one log to many streams: a follower a shard, an audience a tenant, a subscription a stream, one wheel for all."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from bas.events.v2.events_service_pb2 import END_REASON_DRAINING
from chassis.clock import Clock
from chassis.config import Events
from chassis.context import Caller
from chassis.errors import ApiError, Code, unavailable
from chassis.module import Background
from chassis.telemetry.metrics import Metrics
from services.events.follower import Follower
from services.events.port import EventLog
from services.events.ring import Ring
from services.events.streams import StreamMetrics, Streams
from services.events.subscription import Subscription, Wish
from services.events.wheel import Wheel

_RING_OF_QUEUES: Final = 8
"""A shard's ring has room for as many bytes as this many full backlogs."""
_READS: Final = 16
_SPREAD: Final = 5.0
"""Seconds over which those who were sent away come back."""
_TICK: Final = 0.1


class Fanout:
    """The streams of one process. `background` is what must run for them."""

    def __init__(
        self, log: EventLog, settings: Events, clock: Clock, random: Callable[[], float], metrics: Metrics
    ) -> None:
        self._log = log
        self._random = random
        self._limit = settings.tenant_streams
        self._of_tenant: Counter[str] = Counter()
        self._open: set[Subscription] = set()
        self._draining = False
        longest = float(settings.heartbeat)
        tick = min(_TICK, longest / 8)
        wheel = Wheel(clock, tick)
        self._streams = Streams(
            queue_events=settings.queue_events,
            queue_bytes=settings.queue_bytes,
            heartbeat=longest - 2 * tick,  # the wheel is late by a tick or so
            clock=clock,
            wheel=wheel,
            reads=asyncio.Semaphore(_READS),
            random=random,
            metrics=StreamMetrics(metrics, clock.monotonic),
        )
        self._followers = tuple(
            Follower(shard, log, Ring(settings.ring, _RING_OF_QUEUES * settings.queue_bytes), wheel, clock)
            for shard in range(settings.shards)
        )
        self.background = (
            Background("events-wheel", wheel.run),
            *(Background(f"events-follower-{shard}", one.run) for shard, one in enumerate(self._followers)),
        )

    def subscribe(self, caller: Caller, wish: Wish) -> AsyncGenerator[bytes, None]:
        """The messages of a new stream, serialized. Raises TOO_MANY_STREAMS at once; see `Subscription.messages`."""
        if self._draining:
            raise unavailable("DRAINING", "The server is shutting down.", retry_after=self._random() * _SPREAD)
        if self._of_tenant[caller.tenant] >= self._limit:
            raise ApiError(
                Code.RESOURCE_EXHAUSTED,
                "TOO_MANY_STREAMS",
                f"The tenant has {self._limit} event streams open, which is as many as it may have.",
                retry_after=_SPREAD * (0.5 + self._random()),
            )
        return self._run(caller, wish)

    async def drain(self) -> None:
        """Take no more streams, and end those that are open, each told to come back after a time of its own."""
        self._draining = True
        for subscription in tuple(self._open):
            subscription.end(END_REASON_DRAINING, self._random() * _SPREAD)

    @property
    def open(self) -> int:
        """How many streams there are."""
        return len(self._open)

    async def _run(self, caller: Caller, wish: Wish) -> AsyncGenerator[bytes, None]:
        follower = self._followers[self._log.shard_of(caller.tenant)]
        subscription = Subscription(wish, caller, follower.audience(caller.tenant), self._log, self._streams)
        self._open.add(subscription)
        self._of_tenant[caller.tenant] += 1
        self._streams.metrics.subscribers.inc()
        try:
            async with aclosing(subscription.messages()) as messages:
                async for message in messages:
                    yield message
        finally:
            self._open.discard(subscription)
            self._of_tenant[caller.tenant] -= 1
            if not self._of_tenant[caller.tenant]:
                del self._of_tenant[caller.tenant]
            self._streams.metrics.subscribers.dec()
