"""How a connection gets from where its client was to what happens now, without a gap or a duplicate.

Three places hold events: the log (by pages), the stream's ring, and what is to come. Positions say when one may be left
for the next: pages until the ring covers what follows, the ring until nothing is left in it, and that last step and the
registration for what is to come are one turn of the loop.
"""

from dataclasses import dataclass
from typing import Final

from bas.events.v2.events_pb2 import Gap
from chassis.api.cursors import Position, parse
from chassis.clock import Clock
from chassis.errors import ApiError, Code, internal
from gateway.sse.connection import Connection
from gateway.sse.frames import Frame, gap_text, joined
from gateway.sse.measures import LIVE, REPLAY, RING, StreamMeasures
from gateway.sse.replay import Page, Replay
from gateway.sse.stream import Stream

SLICE: Final = 64 * 1024
"""Bytes that are written before the client must have taken most of those before."""
_GIVE_UP: Final = 60.0
"""Seconds for which pages may fail to come."""
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.25
"""Seconds between two looks at whether a client reads."""
_MOVE: Final = 1.0
_RETRY: Final = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED)


class TooSlow(Exception):
    """The client does not read what it asked for; `cursor` is where it has got to."""

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class Start:
    """Where a connection begins: after `position`, with `page` at hand if the ring does not reach back to there."""

    position: Position
    cursor: str
    source: str
    page: Page | None = None


class Joining:
    """`stall` is how many seconds without a byte taken make a client that is catching up too slow."""

    def __init__(self, replay: Replay, *, stall: float, clock: Clock, measures: StreamMeasures) -> None:
        self._stall = stall
        self._replay = replay
        self._clock = clock
        self._measures = measures

    async def start(self, stream: Stream, cursor: str, *, opened: bool = False) -> Start:
        """Where to begin for a client that was at `cursor`, "" for one that is new. The stream has a position, and has
        just been `opened` for this client, or not. Raises ApiError: INVALID_ARGUMENT for a cursor that is none of the
        tenant's."""
        if stream.position is None:
            raise internal()
        if not cursor:
            floor = stream.ring.floor
            if opened and floor is not None:  # what came while this waited came after it had asked
                return Start(floor, stream.ring.floor_cursor, LIVE)
            return Start(stream.position, stream.cursor, LIVE)
        position = parse(cursor)
        if position is not None and cursor == stream.cursor:
            return Start(position, cursor, LIVE)
        if position is not None and stream.ring.knows(cursor):
            return Start(position, cursor, RING)
        page = await self._replay.page(stream, cursor)
        return Start(page.position if position is None else position, cursor, REPLAY, page)

    async def join(self, stream: Stream, connection: Connection, start: Start) -> None:
        """Send what lies between, then add the connection to the stream; or return when it has ended. Raises TooSlow, and
        the ApiError of a page that does not come."""
        self._measures.resumed.labels(start.source).inc()
        position, cursor, page = start.position, start.cursor, start.page
        while not connection.is_over():
            if page is not None:
                if page.gap is not None:
                    self._skip(stream, connection, page.gap)
                    return
                await self._send(connection, page.frames, cursor)
                caught_up = page.caught_up or page.cursor == cursor
                position, cursor, page = page.position, page.cursor, None
                if connection.is_over():
                    return
            else:
                caught_up = False
            if stream.ring.covers(position):
                if _behind(stream, position):
                    await self._wait(stream)
                    continue
                frames, complete = stream.ring.after(position, SLICE)
                if complete:
                    self._write(connection, frames)
                    stream.add(connection)
                    return
                await self._send(connection, frames, cursor)
                position, cursor = frames[-1].position, frames[-1].cursor
                continue
            if caught_up:
                await self._wait(stream)
            page = await self._page(stream, cursor)

    def _skip(self, stream: Stream, connection: Connection, gap: Gap) -> None:
        """What was asked for cannot be had: say so, and go on with what happens from now."""
        told = Gap(
            reason=gap.reason, first_cursor=gap.first_cursor, missing_count=gap.missing_count, cursor=stream.cursor
        )
        connection.write(gap_text(told))
        self._measures.gaps.inc()
        stream.add(connection)

    async def _send(self, connection: Connection, frames: list[Frame], cursor: str) -> None:
        """Write frames as fast as the client takes them. `cursor` is that before the first."""
        size, first = 0, 0
        for at, frame in enumerate(frames):
            size += len(frame.data)
            if size >= SLICE:
                self._write(connection, frames[first : at + 1])
                await self._taken(connection, frames[first - 1].cursor if first else cursor)
                size, first = 0, at + 1
        if first < len(frames):
            self._write(connection, frames[first:])
            await self._taken(connection, frames[first - 1].cursor if first else cursor)

    async def _taken(self, connection: Connection, cursor: str) -> None:
        """Return when little waits for the client, or it is gone. Raises TooSlow."""
        look, least, since = _FIRST_LOOK, connection.waiting(), self._clock.monotonic()
        while least > SLICE and not connection.is_over():
            await self._clock.sleep(look)
            look = min(2 * look, _LONGEST_LOOK)
            waiting, now = connection.waiting(), self._clock.monotonic()
            if waiting < least:
                least, since = waiting, now
            elif now - since >= self._stall:
                raise TooSlow(cursor)

    async def _page(self, stream: Stream, cursor: str) -> Page:
        begun, wait = self._clock.monotonic(), _FIRST_LOOK
        while True:
            try:
                return await self._replay.page(stream, cursor)
            except ApiError as error:
                if error.code not in _RETRY or self._clock.monotonic() - begun >= _GIVE_UP:
                    raise
                wait = min(max(2 * wait, error.retry_after or 0.0), 4.0)
            await self._clock.sleep(wait)

    async def _wait(self, stream: Stream) -> None:
        """The log was read further than the stream has come: it will follow, or its log will turn out to be another."""
        try:
            await stream.moved(_MOVE)
        except TimeoutError:
            return

    def _write(self, connection: Connection, frames: list[Frame]) -> None:
        if connection.is_over():
            return
        data = joined(frames) if frames else b""
        if data:
            connection.write(data)
            count = sum(1 for frame in frames if frame.data)
            self._measures.frames.inc(count)
            self._measures.bytes.inc(len(data))


def _behind(stream: Stream, position: Position) -> bool:
    """Whether the stream, of the same log, has not come to `position` yet."""
    return stream.position is not None and stream.position.sequence < position.sequence
