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
from chassis.store.encoding import EPOCH
from chassis.store.port import Document, DocumentStore, Filter, Op, Query, Value
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

PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends early rather than grow past this: the message it goes in has a limit."""

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
        found, more = await self._fetch(Query(tenant, ENTRIES, filters, NEWEST, after), size)
        response = ListEntriesResponse(entries=await self.numbered(map(stored, found)))
        if more:
            response.next_page_token = self._tokens.issue(listing, _cursor(found[-1]))
        return response

    async def newest(self, tenant: str, size: int) -> list[Entry]:
        found, _ = await self._fetch(Query(tenant, ENTRIES, order=NEWEST), size)
        return await self.numbered(map(stored, found))

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

    async def _fetch(self, query: Query, size: int) -> tuple[list[Document], bool]:
        """Up to `size` documents, and whether there are more behind them."""
        found: list[Document] = []
        weight = 0
        after = query.after
        while True:
            step = min(_STEP, size + 1 - len(found))
            page = await self._documents.query(
                Query(query.tenant, query.collection, query.filters, query.order, after, step)
            )
            for document in page:
                body = document.fields.get("body", b"")
                weight += len(body) if isinstance(body, bytes) else 0
                if len(found) == size or (found and weight > PAGE_BYTES):
                    return found, True
                found.append(document)
            if len(page) < step:
                return found, False
            after = _cursor(page[-1])


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


def _cursor(document: Document) -> tuple[Value, ...]:
    return (document.fields[TIME], document.key.id)
