"""Pages of a user's sessions, newest first, from the store: rarely asked for, and never to be stale."""

from datetime import datetime
from typing import Final

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import ListSessionsRequest, ListSessionsResponse
from chassis.api import paging
from chassis.api.paging import PageTokens
from chassis.clock import Clock
from chassis.store.port import Document, DocumentStore, Query, Value
from services.sessions import session as rules
from services.sessions.filters import COLLECTION, NEWEST_FIRST, Wanted, compile_filter
from services.sessions.records import stored

_METHOD: Final = "bas.sessions.v2.SessionService/ListSessions"

PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends early rather than grow past this: the message it goes in has a limit."""

SCANNED: Final = 2000
"""Sessions looked at for one page. One that then has too few ends early, and its token goes on."""

_STEP: Final = 200


class SessionLists:
    def __init__(self, documents: DocumentStore, tokens: PageTokens, clock: Clock) -> None:
        self._documents = documents
        self._tokens = tokens
        self._clock = clock

    async def page(self, tenant: str, request: ListSessionsRequest) -> ListSessionsResponse:
        """Raises INVALID_ARGUMENT on page_size, filter, page_token."""
        size = paging.page_size(request.page_size)
        wanted = compile_filter(request.user_id, request.filter)
        listing = paging.Listing(tenant, _METHOD, (request.user_id, wanted.canonical))
        after = self._tokens.read(listing, request.page_token)
        if wanted.nothing:
            return ListSessionsResponse()
        found, cursor = await self._fetch(tenant, wanted, after, size)
        token = "" if cursor is None else self._tokens.issue(listing, cursor)
        return ListSessionsResponse(sessions=found, next_page_token=token)

    async def _fetch(
        self, tenant: str, wanted: Wanted, after: tuple[Value, ...] | None, size: int
    ) -> tuple[list[Session], tuple[Value, ...] | None]:
        """Up to `size` sessions, and where to go on when there may be more."""
        found: list[Session] = []
        now = self._clock.now()
        weight = looked = 0
        while True:
            step = min(_STEP, size + 1 - len(found))
            page = await self._documents.query(Query(tenant, COLLECTION, wanted.stored, NEWEST_FIRST, after, step))
            for document in page:
                session = _shown(document, now)
                if wanted.has(session):
                    weight += session.ByteSize()
                    if len(found) == size or (found and weight > PAGE_BYTES):
                        return found, after
                    found.append(session)
                after = _cursor(document)
            looked += len(page)
            if len(page) < step:
                return found, None
            if looked >= SCANNED + size:
                return found, after


def _shown(document: Document, now: datetime) -> Session:
    session = stored(document).session
    session.status = rules.status_at(session, now)
    return session


def _cursor(document: Document) -> tuple[Value, ...]:
    return document.fields["create_time"], document.key.id
