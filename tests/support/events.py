"""An events service in memory, as the gateway calls it: an ordered log a tenant, pages, streams, and what goes wrong."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from bas.events.v2.events_pb2 import (
    GAP_REASON_AHEAD_OF_LOG,
    GAP_REASON_EPOCH_CHANGED,
    GAP_REASON_TOO_OLD,
    Gap,
    GapReason,
    LoggedEvent,
)
from bas.events.v2.events_service_pb2 import (
    Heartbeat,
    ListEventsRequest,
    ListEventsResponse,
    StreamEnd,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from chassis.api.cursors import Cursors, Position
from chassis.errors import ApiError, unavailable
from chassis.interceptors.stream import FIRST, StreamCall
from chassis.policies import Policy
from gateway.upstream import Metadata, UnaryCall


@dataclass
class Log:
    """One tenant's. `events[i]` has the sequence `floor + i + 1`."""

    epoch: str = "e1"
    floor: int = 0
    events: list[LoggedEvent] = field(default_factory=list)

    @property
    def end(self) -> Position:
        return Position(self.epoch, self.floor + len(self.events))


class FakeEvents:
    """`pause` is awaited before each answer, and lets tests put other things between."""

    def __init__(self, pause: Callable[[], Awaitable[None]] | None = None) -> None:
        self.cursors = Cursors(bytes(32))
        self.logs: defaultdict[str, Log] = defaultdict(Log)
        self.streams: set[FakeStream] = set()
        self.opened = 0
        self.listed = 0
        self.metadata: list[Metadata] = []
        self.refusal: ApiError | None = None
        self.page_size = 1000
        self._pause = pause

    def publish(
        self, tenant: str = "acme", type_: str = "device.online", subject: str = "devices/d1", **more: Any
    ) -> LoggedEvent:
        """One more event; given to those who follow when they get to run."""
        log = self.logs[tenant]
        logged = LoggedEvent()
        logged.event.id = f"{log.epoch}-{log.end.sequence + 1}"
        logged.event.source, logged.event.type, logged.event.subject = "/bas/devices", type_, subject
        logged.event.specversion, logged.event.tenantid = "1.0", tenant
        logged.event.sequence = str(log.end.sequence + 1)
        for name, value in more.items():
            if name == "data":
                logged.event.data.string_value = value
            else:
                setattr(logged.event, name, value)
        logged.cursor = self.cursors.write(tenant, Position(log.epoch, log.end.sequence + 1))
        log.events.append(logged)
        self.wake()
        return logged

    def cursor(self, tenant: str = "acme") -> str:
        """The end of the log."""
        return self.cursors.write(tenant, self.logs[tenant].end)

    def forget(self, count: int, tenant: str = "acme") -> None:
        """Drop the oldest events."""
        log = self.logs[tenant]
        count = min(count, len(log.events))
        del log.events[:count]
        log.floor += count

    def roll_back(self, epoch: str, kept: int = 0, tenant: str = "acme") -> None:
        """The log was lost but for the first events, and goes on under another epoch."""
        log = self.logs[tenant]
        log.epoch = epoch
        del log.events[kept:]
        for number, logged in enumerate(log.events, log.floor + 1):
            logged.cursor = self.cursors.write(tenant, Position(epoch, number))
        self.wake()

    def restart(self) -> None:
        """All streams break."""
        for stream in tuple(self.streams):
            stream.end_with(unavailable("EVENTS_UNAVAILABLE", "Restarting.", retry_after=0.0))

    def wake(self) -> None:
        for stream in tuple(self.streams):
            stream.changed.set()

    def subscribe(self, request: bytes, metadata: Metadata = (), first: float = FIRST) -> "FakeStream":
        """A `StreamCall`."""
        del first
        self.opened += 1
        self.metadata.append(metadata)
        return FakeStream(self, SubscribeEventsRequest.FromString(request), tenant_of(metadata))

    async def list_events(self, request: bytes, seconds: float, metadata: Metadata) -> bytes:
        """A `UnaryCall`."""
        del seconds
        self.listed += 1
        await self.pause()
        if self.refusal is not None:
            raise self.refusal
        asked = ListEventsRequest.FromString(request)
        tenant = tenant_of(metadata)
        log, answer = self.logs[tenant], ListEventsResponse()
        position, gap = self.place(tenant, asked.cursor)
        if gap is not None:
            gap.cursor = gap.first_cursor
            answer.gap.CopyFrom(gap)
            position = Position(log.epoch, log.floor)
        page = log.events[position.sequence - log.floor :][: min(self.page_size, asked.page_size)]
        answer.events.extend(each for each in page if matches(asked, each))
        answer.next_cursor = self.cursors.write(tenant, Position(log.epoch, position.sequence + len(page)))
        answer.caught_up = position.sequence + len(page) == log.end.sequence
        await self.pause()
        return answer.SerializeToString()

    def place(self, tenant: str, cursor: str) -> tuple[Position, Gap | None]:
        """Where a cursor is, or why nowhere."""
        log = self.logs[tenant]
        if not cursor:
            return Position(log.epoch, log.floor), None
        position = self.cursors.read(tenant, cursor)
        reason: GapReason.ValueType | None = None
        if position.epoch != log.epoch:
            reason = GAP_REASON_EPOCH_CHANGED
        elif position.sequence > log.end.sequence:
            reason = GAP_REASON_AHEAD_OF_LOG
        elif position.sequence < log.floor:
            reason = GAP_REASON_TOO_OLD
        if reason is None:
            return position, None
        first = self.cursors.write(tenant, Position(log.epoch, log.floor))
        return log.end, Gap(reason=reason, first_cursor=first, cursor=self.cursor(tenant))

    async def pause(self) -> None:
        if self._pause is not None:
            await self._pause()


class FakeStream:
    """One call of SubscribeEvents."""

    def __init__(self, service: FakeEvents, asked: SubscribeEventsRequest, tenant: str) -> None:
        self.service = service
        self.asked = asked
        self.tenant = tenant
        self.changed = asyncio.Event()
        self._position: Position | None = None
        self._error: ApiError | None = None
        self._ended = False
        self._last: StreamEnd | None = None
        self._beats = 0
        service.streams.add(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await self.service.pause()
        if self._position is None and not self._ended:
            return self._first().SerializeToString()
        while not self._ended:
            message = self._next()
            if message is not None:
                return message.SerializeToString()
            self.changed.clear()
            await self.changed.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    def cancel(self) -> None:
        self._ended = True
        self.service.streams.discard(self)
        self.changed.set()

    def end_with(self, error: ApiError) -> None:
        """Break."""
        self._error = error
        self.cancel()

    def say_goodbye(self, end: StreamEnd) -> None:
        """End in order."""
        self._last = end
        self.changed.set()

    def beat(self) -> None:
        """Tell the position."""
        self._beats += 1
        self.changed.set()

    def _first(self) -> SubscribeEventsResponse:
        if self.service.refusal is not None:
            self.cancel()
            raise self.service.refusal
        if not self.asked.cursor:
            self._position = self.service.logs[self.tenant].end
            return self._heartbeat()
        try:
            self._position, gap = self.service.place(self.tenant, self.asked.cursor)
        except ApiError:
            self.cancel()
            raise
        return self._heartbeat() if gap is None else SubscribeEventsResponse(gap=gap)

    def _heartbeat(self) -> SubscribeEventsResponse:
        assert self._position is not None
        return SubscribeEventsResponse(
            heartbeat=Heartbeat(cursor=self.service.cursors.write(self.tenant, self._position))
        )

    def _next(self) -> SubscribeEventsResponse | None:
        log = self.service.logs[self.tenant]
        assert self._position is not None
        if self._last is not None:
            self._ended = True
            return SubscribeEventsResponse(end=self._last)
        if self._position.epoch != log.epoch or self._position.sequence < log.floor:
            cursor = self.service.cursors.write(self.tenant, self._position)
            self._position, gap = self.service.place(self.tenant, cursor)
            return SubscribeEventsResponse(gap=gap)
        while self._position.sequence < log.end.sequence:
            logged = log.events[self._position.sequence - log.floor]
            self._position = Position(log.epoch, self._position.sequence + 1)
            if matches(self.asked, logged):
                return SubscribeEventsResponse(event=logged)
        if self._beats:
            self._beats -= 1
            return self._heartbeat()
        return None


def matches(asked: SubscribeEventsRequest | ListEventsRequest, logged: LoggedEvent) -> bool:
    """Whether a filter lets an event through."""
    event = logged.event
    wanted = not asked.types or any(
        event.type.startswith(each[:-1]) if each.endswith("*") else event.type == each for each in asked.types
    )
    return wanted and asked.subject in ("", event.subject) and asked.source in ("", event.source)


def tenant_of(metadata: Metadata) -> str:
    """Tests' credentials are `Bearer <tenant>`."""
    return dict(metadata)["authorization"].removeprefix("Bearer ")


class EventsUpstream:
    """The events service as one of a gateway's upstreams."""

    def __init__(self, events: FakeEvents) -> None:
        self.events = events

    def unary(self, path: str, policy: Policy) -> UnaryCall:
        del path, policy
        return self.events.list_events

    def stream(self, path: str) -> StreamCall:
        del path
        return self.events.subscribe

    async def ready(self, service: str, seconds: float) -> bool:
        del service, seconds
        return True

    async def close(self) -> None:
        return
