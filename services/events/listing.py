"""Pages of a tenant's log."""

from collections.abc import Iterator
from typing import Final, Protocol

from bas.events.v2.events_pb2 import Gap
from bas.events.v2.events_service_pb2 import ListEventsRequest, ListEventsResponse
from chassis.api import paging
from chassis.api.cursors import Cursors, Position
from services.events.filters import EventFilter, compile_filter
from services.events.port import Entry, EventLog, Extent
from services.events.records import framed

PAGE_BYTES: Final = 1024 * 1024
"""A page ends early rather than grow past this, unless its first event does."""
SCANNED_EVENTS: Final = 5_000
SCANNED_BYTES: Final = 4 * 1024 * 1024
"""Looked through for one page: one that finds nothing in so many ends, with the cursor to go on from."""
_STEP: Final = 500


class Log(EventLog, Protocol):
    """A log that shows its extent and events of it in one look."""

    async def look(self, tenant: str, after: int, *, limit: int, max_bytes: int) -> tuple[Extent, list[Entry]]:
        """The extent, and events after a sequence, seen at one moment."""
        ...


class EventLists:
    def __init__(self, log: Log, cursors: Cursors) -> None:
        self._log = log
        self._cursors = cursors

    async def page(self, tenant: str, request: ListEventsRequest) -> bytes:
        """A serialized ListEventsResponse. Raises INVALID_ARGUMENT on types, page_size and cursor."""
        size = paging.page_size(request.page_size)
        wanted = compile_filter(request.types, request.subject, request.source)
        asked = self._cursors.read(tenant, request.cursor) if request.cursor else None
        step = size if wanted.everything else _STEP

        async def look(after: int) -> tuple[Extent, list[Entry]]:
            return await self._log.look(tenant, after, limit=step, max_bytes=PAGE_BYTES)

        response = ListEventsResponse()
        extent, found = await look(0 if asked is None else asked.sequence)
        start = extent.first if asked is None else extent.place(asked)
        if asked is not None and start is None:
            response.gap.CopyFrom(self._gap(tenant, asked, extent))
            if asked.sequence > extent.first.sequence:
                extent, found = await look(0)
            start = extent.first
        scan = _Scan(wanted, size, start or extent.first)
        while not scan.take(found) and scan.at.sequence < extent.last.sequence:
            now, found = await look(scan.at.sequence)
            placed = now.place(scan.at)
            if placed is None or not found:
                # Lost, or trimmed, since the page was begun: the next one begins with the gap.
                break
            extent, scan.at = now, placed
        response.next_cursor = self._cursors.write(tenant, scan.at)
        response.caught_up = scan.at == extent.last
        return b"".join(scan.frames()) + response.SerializeToString()

    def _gap(self, tenant: str, asked: Position, extent: Extent) -> Gap:
        first = self._cursors.write(tenant, extent.first)
        reason = extent.why_not(asked)
        known = asked.epoch == extent.last.epoch or asked.epoch in extent.earlier
        missing = extent.first.sequence - asked.sequence if known else 0
        return Gap(reason=reason, first_cursor=first, cursor=first, missing_count=max(0, missing))


class _Scan:
    """What was looked through, up to and with `at`."""

    def __init__(self, wanted: EventFilter, size: int, start: Position) -> None:
        self.at = start
        self._wanted = wanted
        self._size = size
        self._kept: list[Entry] = []
        self._bytes = 0
        self._events_left = SCANNED_EVENTS
        self._bytes_left = SCANNED_BYTES

    def take(self, found: list[Entry]) -> bool:
        """True when the page is full, or enough was looked through."""
        for each in found:
            if each.position.sequence != self.at.sequence + 1:
                # Begins after a hole: the next page tells of it.
                return True
            if self._wanted.matches(each):
                if len(self._kept) == self._size or (self._kept and self._bytes + len(each.logged) > PAGE_BYTES):
                    return True
                self._kept.append(each)
                self._bytes += len(each.logged)
            self.at = each.position
            self._events_left -= 1
            self._bytes_left -= len(each.logged)
        return len(self._kept) == self._size or self._events_left <= 0 or self._bytes_left <= 0

    def frames(self) -> Iterator[bytes]:
        return (framed(each.logged) for each in self._kept)
