"""Reading entries: by id, and a page at a time, newest first."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import ListEntriesRequest, ListEntriesResponse
from chassis.api import paging
from chassis.api.paging import PageTokens
from chassis.errors import ApiError, Code, invalid_field, not_found
from chassis.store import pages
from chassis.store.encoding import EPOCH
from chassis.store.pages import Page
from chassis.store.port import Document, DocumentStore, Filter, Op, Query
from services.audit.placements import Placements
from services.audit.records import (
    ACTION,
    ACTOR,
    ENTRIES,
    NEWEST,
    RESOURCE,
    TIME,
    Stored,
    entry_key,
    resource_term,
    stored,
)

_METHOD: Final = "bas.audit.v2.AuditService/ListEntries"
_STEP: Final = 100
"""Documents fetched at once, so that a page of large entries is cut before all of them are in memory."""


class Reader:
    def __init__(self, documents: DocumentStore, placements: Placements, tokens: PageTokens) -> None:
        self._documents = documents
        self._placements = placements
        self._tokens = tokens

    async def get(self, tenant: str, entry_id: str) -> Entry:
        """Raises ENTRY_NOT_FOUND, and ENTRY_DROPPED when it is too old for more than its hash to be there."""
        found = await self.read(tenant, entry_id)
        if found.entry is None:
            raise ApiError(
                Code.NOT_FOUND, "ENTRY_DROPPED", f"Of the entry {entry_id!r}, only its hash is there: it is too old."
            )
        return (await self.numbered([found]))[0]

    async def sequence(self, tenant: str, entry_id: str) -> int | None:
        """Where the entry is in the log; None while it waits. Raises ENTRY_NOT_FOUND."""
        found = await self.read(tenant, entry_id)
        first = (await self._placements.of([found.arrival])).get(found.arrival)
        return None if first is None else first + found.place

    async def read(self, tenant: str, entry_id: str) -> Stored:
        """Raises ENTRY_NOT_FOUND."""
        document = await self._documents.get(entry_key(tenant, entry_id))
        if document is None:
            raise not_found("entry", entry_id)
        return stored(document)

    async def page(self, tenant: str, request: ListEntriesRequest) -> ListEntriesResponse:
        """Raises INVALID_ARGUMENT on page_size, page_token, resource_id, end_time."""
        size = paging.page_size(request.page_size)
        filters = _filters(request)
        shape = (request.actor, request.action, request.resource_type, request.resource_id, _bounds(request))
        listing = paging.Listing(tenant, _METHOD, shape)
        after = self._tokens.read(listing, request.page_token)
        page = await self._page(Query(tenant, ENTRIES, filters, NEWEST, after), size)
        response = ListEntriesResponse(entries=await self.numbered(page.items))
        if page.last is not None:
            response.next_page_token = self._tokens.issue(listing, page.last)
        return response

    async def newest(self, tenant: str, size: int) -> list[Entry]:
        return await self.numbered((await self._page(Query(tenant, ENTRIES, order=NEWEST), size)).items)

    async def numbered(self, found: Iterable[Stored]) -> list[Entry]:
        """The entries with their sequences, where they have one. Those whose body was dropped are left out."""
        held = [(each.entry, each) for each in found if each.entry is not None]
        arrivals = list(dict.fromkeys(each.arrival for _, each in held))
        placed: dict[str, int] = {}
        for start in range(0, len(arrivals), _STEP):
            placed |= await self._placements.of(arrivals[start : start + _STEP])
        for entry, each in held:
            if each.arrival in placed:
                entry.sequence = placed[each.arrival] + each.place
        return [entry for entry, _ in held]

    async def _page(self, query: Query, size: int) -> Page[Stored]:
        return await pages.fetch(self._documents, query, size, _read, _STEP)


def _read(document: Document) -> tuple[Stored, int]:
    body = document.fields.get("body", b"")
    return stored(document), len(body) if isinstance(body, bytes) else 0


def _filters(request: ListEntriesRequest) -> tuple[Filter, ...]:
    filters: list[Filter] = []
    if request.actor:
        filters.append(Filter(ACTOR, Op.EQ, request.actor))
    if request.action:
        filters.append(Filter(ACTION, Op.EQ, request.action))
    if request.resource_id and not request.resource_type:
        raise invalid_field("resource_id", "needs resource_type, for ids are of a kind")
    if request.resource_type:
        term = resource_term(request.resource_type, request.resource_id)
        filters.append(Filter(RESOURCE, Op.CONTAINS, term))
    for name, op in (("start_time", Op.GE), ("end_time", Op.LT)):
        if request.HasField(name):  # type: ignore[arg-type]  # one of the two names above
            filters.append(Filter(TIME, op, _moment(getattr(request, name))))
    return tuple(filters)


def _moment(time: Timestamp) -> datetime:
    """Whole microseconds, which is what record times have: of what lies between two, the later."""
    return EPOCH + timedelta(seconds=time.seconds, microseconds=-(-time.nanos // 1000))


def _bounds(request: ListEntriesRequest) -> str:
    return " ".join(
        f"{time.seconds}.{time.nanos}" if there else "-"
        for there, time in (
            (request.HasField("start_time"), request.start_time),
            (request.HasField("end_time"), request.end_time),
        )
    )
