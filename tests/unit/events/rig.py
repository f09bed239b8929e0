"""The fan-out over a log in memory and a clock that stands still, with readers that a test may stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import SubscribeEventsResponse
from chassis.api.cursors import Cursors, Position
from chassis.clock import FakeClock
from chassis.config import Events
from chassis.context import Caller
from chassis.module import Background
from chassis.telemetry.metrics import Metrics
from services.events.fanout import Fanout
from services.events.filters import EventFilter, compile_filter
from services.events.port import EventLog
from services.events.subscription import Wish
from tests.support.event_log import SECRET, MemoryEventLog

CURSORS = Cursors(SECRET)


def event(name: str | int, kind: str = "thing.made", subject: str = "", source: str = "/test") -> CloudEvent:
    return CloudEvent(id=str(name), source=source, type=kind, subject=subject)


def caller(tenant: str = "acme", *, session_id: str = "", left: float = 1e6) -> Caller:
    expires = FakeClock().now().timestamp() + left
    return Caller(tenant, "ada", frozenset({"events:read"}), expires, session_id)


def wanting(*types: str, subject: str = "", source: str = "") -> EventFilter:
    return compile_filter(types, subject, source)


class Reader:
    """One stream. Takes messages as they come, one at a time, while `reads` is set."""

    def __init__(self, messages: Any, *, reads: bool = True) -> None:
        self.messages: list[SubscribeEventsResponse] = []
        self.failure: BaseException | None = None
        self._ended = False
        self._once = False
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()
        self._task = asyncio.create_task(self._read(messages))

    async def _read(self, messages: Any) -> None:
        try:
            async with aclosing(messages):
                async for raw in messages:
                    await self.reads.wait()
                    if self._once:
                        self._once = False
                        self.reads.clear()
                    self.messages.append(SubscribeEventsResponse.FromString(raw))
                self._ended = True
        except Exception as failure:  # noqa: BLE001 - for the test to look at
            self.failure = failure

    def step(self) -> None:
        """Let one message in."""
        self._once = True
        self.reads.set()

    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.messages]

    def ids(self) -> list[str]:
        return [message.event.event.id for message in self.messages if message.HasField("event")]

    def has_ended(self) -> bool:
        """In order, that is: not cut off."""
        return self._ended

    @property
    def last(self) -> SubscribeEventsResponse:
        return self.messages[-1]

    @property
    def done(self) -> bool:
        return self._task.done()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class Rig:
    def __init__(
        self, log: EventLog, memory: MemoryEventLog, clock: FakeClock, fanout: Fanout, metrics: Metrics
    ) -> None:
        self.memory = memory
        self.clock = clock
        self.fanout = fanout
        self.metrics = metrics
        self._log = log
        self._readers: list[Reader] = []
        self._loops = [asyncio.create_task(run(one), name=one.name) for one in fanout.background]

    def subscribe(
        self, wish: Wish | None = None, who: Caller | None = None, *, cursor: str | None = None, reads: bool = True
    ) -> Reader:
        who = who or caller()
        if cursor is not None:
            wish = Wish(EventFilter(), CURSORS.read(who.tenant, cursor))
        reader = Reader(self.fanout.subscribe(who, wish or Wish(EventFilter())), reads=reads)
        self._readers.append(reader)
        return reader

    async def listening(self, wish: Wish | None = None, who: Caller | None = None, *, reads: bool = True) -> Reader:
        """A stream that has begun and has come to the present."""
        reader = self.subscribe(wish, who, reads=reads)
        await settle()
        return reader

    async def publish(self, *names: str | int, tenant: str = "acme", **more: str) -> None:
        for name in names:
            await self.memory.publish(tenant, [event(name, **more)])
        await settle()

    async def position(self, tenant: str = "acme") -> Position:
        return (await self.memory.extent(tenant)).last

    def sample(self, name: str, **labels: str) -> float:
        samples = (sample for metric in self.metrics.registry.collect() for sample in metric.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    async def restart_follower(self, shard: int) -> None:
        """The loop fails and runs again, as the process has it."""
        await end(self._loops[1 + shard])
        again = self.fanout.background[1 + shard]
        self._loops[1 + shard] = asyncio.create_task(run(again), name=again.name)

    async def close(self) -> None:
        for reader in self._readers:
            await reader.close()
        assert self.fanout.open == 0
        for loop in self._loops:
            await end(loop)


async def run(background: Background) -> None:
    await background.run()


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def rig(log: Any = None, *, keep: int = 10_000, **settings: Any) -> AsyncIterator[Rig]:
    """`log` wraps the log in memory; settings are those of `Events`."""
    clock = FakeClock()
    memory = MemoryEventLog(clock, shards=2, keep=keep)
    used: EventLog = memory if log is None else log(memory)
    metrics = Metrics()
    made = Fanout(used, Events(**{"shards": 2, **settings}), clock, lambda: 0.5, metrics)
    running = Rig(used, memory, clock, made, metrics)
    try:
        yield running
    finally:
        await running.close()


async def settle(turns: int = 60) -> None:
    """Let everything run that does not wait for time."""
    for _ in range(turns):
        await asyncio.sleep(0)
