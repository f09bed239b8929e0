"""One stream of events, as it is followed upstream once for all who asked for the same: where it has come to, its newest
frames, and who gets them."""

import asyncio
from collections.abc import Callable
from typing import Final

from bas.events.v2.events_pb2 import GAP_REASON_EPOCH_CHANGED, Gap, LoggedEvent
from bas.events.v2.events_service_pb2 import END_REASON_SLOW_CONSUMER, StreamEnd, SubscribeEventsResponse
from chassis.api.cursors import Position
from chassis.clock import Clock
from chassis.errors import ApiError
from gateway.sse.conflation import Conflation
from gateway.sse.connection import SLOTS, Connection
from gateway.sse.frames import COMMENT, Frame, event_frame, gap_frame, joined, mark, text
from gateway.sse.measures import StreamMeasures
from gateway.sse.ring import Ring

End = Callable[[Connection, int, str], None]
"""(connection, reason, cursor): say goodbye, and close."""
Listener = Callable[[LoggedEvent | None], None]
"""Gets each event as it comes, and None where some may have been missed."""

_LONGEST_PACE: Final = 0.02
"""Seconds between two rounds of writes at most; otherwise as long as the last one took, so that under load events are
collected and each connection gets several in one write."""


class Stream:
    """`request` is what is followed, without a cursor. `buffer` is how many unsent bytes make a connection slow.

    Everything here runs within one turn of the loop and never waits, which is what keeps the order: whoever is added gets
    exactly what follows `position`.
    """

    def __init__(
        self, tenant: str, request: bytes, *, buffer: int, clock: Clock, measures: StreamMeasures, end: End
    ) -> None:
        self.tenant = tenant
        self.request = request
        self.position: Position | None = None
        self.cursor = ""
        self.ring = Ring()
        self.listeners: list[Listener] = []
        self.users = 0
        self.heard = clock.monotonic()
        self._members: tuple[set[Connection], ...] = tuple(set() for _ in range(SLOTS))
        self._behind: set[Connection] = set()
        self._buffer = buffer
        self._clock = clock
        self._measures = measures
        self._end = end
        self._pending: list[Frame] = []
        self._sent = ""
        self._told = ""
        self._wrote = clock.monotonic()
        self._beaten = [self._wrote] * SLOTS
        self._next_flush = 0.0
        self._flush_due: asyncio.Handle | None = None
        self._moved: asyncio.Future[None] | None = None
        self._reset = False

    def take(self, message: SubscribeEventsResponse) -> StreamEnd | None:
        """One message from upstream; the end, when it is that."""
        self.heard = self._clock.monotonic()
        kind = message.WhichOneof("message")
        if kind == "event":
            self._event(message.event)
        elif kind == "heartbeat":
            self._heartbeat(message.heartbeat.cursor)
        elif kind == "gap":
            self._gap(message.gap)
        elif kind == "end":
            return message.end
        return None

    def forget_cursor(self) -> None:
        """Upstream does not take the cursor any more: what comes next begins anew, after a gap."""
        self.cursor = ""
        self._reset = self.position is not None

    def fail(self, error: ApiError) -> None:
        """It could not be opened: those who wait for a first position are told."""
        if self.position is None and self._moved is not None and not self._moved.done():
            self._moved.set_exception(error)
            self._moved.exception()  # whether anybody waits or not
            self._moved = None

    async def moved(self, seconds: float) -> None:
        """Return when the position has changed. Raises TimeoutError, and what `fail` was given."""
        if self._moved is None or self._moved.done():
            self._moved = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._moved)

    def add(self, connection: Connection) -> None:
        """Let it have all that follows `position`. What is not sent yet is, first: it is before that."""
        self.flush()
        self._members[connection.slot].add(connection)

    def remove(self, connection: Connection) -> None:
        """Harmless when it is not there."""
        self._members[connection.slot].discard(connection)
        self._behind.discard(connection)
        connection.conflation = None

    def __len__(self) -> int:
        return sum(map(len, self._members)) + len(self._behind)

    def flush(self) -> None:
        """Write what waits, the same bytes to all, in one write each."""
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if not self._pending:
            return
        frames, self._pending = self._pending, []
        self._write(frames)

    def beat(self, slot: int, silence: float) -> None:
        """A heartbeat to the connections of one group, unless all had something in the last `silence` seconds. It names
        the position if no event did, so that a filter that rarely matches does not fall out of what the log keeps."""
        members, now = self._members[slot], self._clock.monotonic()
        if members and now - max(self._wrote, self._beaten[slot]) >= silence:
            self._beaten[slot] = now
            self.flush()
            data = COMMENT if self.cursor in ("", self._told) else COMMENT[:-1] + text(id=self.cursor)
            for connection in tuple(members):
                if not connection.transport.closing and connection.waiting() <= self._buffer:
                    connection.write(data)
        self.release()

    def release(self) -> None:
        """Give those who were behind, and are no more, what was kept for them."""
        for connection in tuple(self._behind):
            if connection.transport.closing:
                continue
            if connection.conflation is not None and connection.waiting() <= self._buffer // 2:
                kept = connection.conflation
                connection.conflation = None
                self._behind.discard(connection)
                connection.write(kept.text())
                self._measures.gaps.inc(1 if kept.skipped else 0)
                self._members[connection.slot].add(connection)

    def _event(self, logged: LoggedEvent) -> None:
        frame = event_frame(logged)
        if frame is None:
            return
        position = frame.position
        if self.position is None:
            before = Position(position.epoch, position.sequence - 1)
            self._begin(Frame(before, "", "", b""))
        elif self._reset:
            self._lost(frame)
        elif position.epoch != self.position.epoch:
            if position.sequence <= self.position.sequence:
                self._lost(frame)
            else:
                self._continue(Frame(Position(position.epoch, position.sequence - 1), "", "", b""))
        elif position.sequence <= self.position.sequence:
            return  # had it
        self._queue(frame)
        self._advance(frame)
        for listener in self.listeners:
            listener(logged)

    def _heartbeat(self, cursor: str) -> None:
        frame = mark(cursor)
        if frame is None:
            return
        if self.position is None:
            self._begin(frame)
            for listener in self.listeners:
                listener(None)  # what was before nobody heard
        elif self._reset:
            self._lost(frame)
        elif frame.position.epoch != self.position.epoch:
            if frame.position.sequence < self.position.sequence:
                self._lost(frame)
            else:
                self._continue(frame)
        elif frame.position.sequence > self.position.sequence:
            self._advance(frame)

    def _gap(self, gap: Gap) -> None:
        frame = gap_frame(gap)
        if frame is None:
            return
        self._reset = False
        if self.position is None:  # nobody has had anything yet
            self._begin(frame)
            return
        self._queue(frame)
        self._begin(frame)
        self._measures.gaps.inc(len(self))
        for listener in self.listeners:
            listener(None)

    def _continue(self, at: Frame) -> None:
        """The server of the log was started again and nothing was lost: a new epoch goes on where the old one ended. Which
        positions of the old one that is true for, the ring does not know; so it begins anew, and the log is asked."""
        self.ring.restart(at)
        self._advance(at, keep=False)

    def _lost(self, at: Frame) -> None:
        """Upstream is in another log than before and did not say so."""
        self._gap(Gap(reason=GAP_REASON_EPOCH_CHANGED, cursor=at.cursor))

    def _begin(self, frame: Frame) -> None:
        self.ring.restart(frame)
        self._advance(frame, keep=False)

    def _advance(self, frame: Frame, *, keep: bool = True) -> None:
        self.position = frame.position
        self.cursor = frame.cursor or self.cursor
        if keep:
            self.ring.append(frame)
        if self._moved is not None:
            if not self._moved.done():
                self._moved.set_result(None)
            self._moved = None

    def _queue(self, frame: Frame) -> None:
        if not self._pending:
            self._sent = self.cursor
        self._pending.append(frame)
        if self._flush_due is None:
            wait = self._next_flush - self._clock.monotonic()
            loop = asyncio.get_running_loop()
            self._flush_due = loop.call_later(wait, self.flush) if wait > 0 else loop.call_soon(self.flush)

    def _write(self, frames: list[Frame]) -> None:
        data, limit = joined(frames), self._buffer
        slow: list[Connection] = []
        count = 0
        begun = self._clock.monotonic()
        for members in self._members:
            count += len(members)
            for connection in members:
                try:
                    if connection.waiting() > limit:
                        slow.append(connection)
                    else:
                        connection.write(data)
                except RuntimeError:  # closed within this turn: its end is on the way
                    connection.transport.abort()
        for connection in self._behind:
            if connection.conflation is not None:
                connection.conflation.add(frames)
        for connection in slow:
            self._slow(connection, frames)
        self.release()
        self._wrote = self._clock.monotonic()
        self._next_flush = self._wrote + min(self._wrote - begun, _LONGEST_PACE)
        self._told = frames[-1].cursor
        sent = count - len(slow)
        self._measures.frames.inc(sent * len(frames))
        self._measures.bytes.inc(sent * len(data))

    def _slow(self, connection: Connection, frames: list[Frame]) -> None:
        if connection.conflates:
            self._members[connection.slot].discard(connection)
            self._behind.add(connection)
            connection.conflation = Conflation(self._sent, self._buffer)
            connection.conflation.add(frames)
            self._measures.slow.labels("conflate").inc()
        else:
            self._measures.slow.labels("disconnect").inc()
            self._end(connection, END_REASON_SLOW_CONSUMER, self._sent)
