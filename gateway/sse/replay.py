"""Events of the past, by pages of ListEvents; those who ask for the same page at the same time get the same one."""

import asyncio
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from bas.events.v2.events_pb2 import Gap
from bas.events.v2.events_service_pb2 import ListEventsRequest, ListEventsResponse, SubscribeEventsRequest
from chassis.api.cursors import Position, parse
from chassis.errors import internal
from gateway.sse.frames import Frame, event_frames
from gateway.sse.source import Pass
from gateway.sse.stream import Stream
from gateway.upstream import UnaryCall

_SECONDS: Final = 4.0
_EVENTS: Final = 500
_AT_ONCE: Final = 16
"""Pages that are read at once, for all connections together: a thousand that come back at once must not be a thousand
calls at once, and most of them want the same page."""


@dataclass(frozen=True, slots=True)
class Page:
    """Events, and the position to go on from. `gap`: the cursor could not be honoured."""

    frames: list[Frame]
    position: Position
    cursor: str
    caught_up: bool
    gap: Gap | None


class Replay:
    """`list_events` is the call of ListEvents."""

    def __init__(self, list_events: UnaryCall, credential: Pass) -> None:
        self._list_events = list_events
        self._credential = credential
        self._reading: dict[tuple[str, bytes, str], asyncio.Task[Page]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def page(self, stream: Stream, cursor: str) -> Page:
        """The events of `stream` after a cursor. Raises ApiError: INVALID_ARGUMENT for a cursor that is none of the
        tenant's."""
        key = stream.tenant, stream.request, cursor
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read(stream.tenant, stream.request, cursor), name="sse-replay")
            self._reading[key] = reading
            reading.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(reading)

    async def close(self) -> None:
        """End what is being read."""
        reading = tuple(self._reading.values())
        for each in reading:
            each.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def _done(self, key: tuple[str, bytes, str], reading: asyncio.Task[Page]) -> None:
        self._reading.pop(key, None)
        if not reading.cancelled():
            reading.exception()  # told to those who wait, if any still do

    async def _read(self, tenant: str, wanted: bytes, cursor: str) -> Page:
        asked = SubscribeEventsRequest.FromString(wanted)
        request = ListEventsRequest(
            types=asked.types, subject=asked.subject, source=asked.source, cursor=cursor, page_size=_EVENTS
        ).SerializeToString()
        async with self._turns:
            answer = await self._list_events(request, _SECONDS, self._credential(tenant))
        return _page(answer)


def _page(answer: bytes) -> Page:
    try:
        page = ListEventsResponse.FromString(answer)
    except DecodeError:
        raise internal() from None
    position = parse(page.next_cursor)
    if position is None:
        raise internal()
    gap = page.gap if page.HasField("gap") else None
    return Page(event_frames(page.events), position, page.next_cursor, page.caught_up, gap)
