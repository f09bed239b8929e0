"""Pages of a tenant's users, always from the store."""

from collections.abc import Sequence
from typing import Final

from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import ListUsersRequest, ListUsersResponse
from chassis.api import paging
from chassis.store.port import Document, DocumentStore, Order, Query, Value
from services.users.cursors import SealedTokens
from services.users.filters import COLLECTION, compile_filter, order_of
from services.users.records import stored

_METHOD: Final = "bas.users.v2.UserService/ListUsers"

PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends early rather than grow past this: the message it goes in has a limit."""

_STEP: Final = 200
"""Documents fetched at once, so that a page of large users is cut before all of them are in memory."""


class UserLists:
    def __init__(self, documents: DocumentStore, tokens: SealedTokens) -> None:
        self._documents = documents
        self._tokens = tokens

    async def page(self, tenant: str, request: ListUsersRequest) -> ListUsersResponse:
        """Raises INVALID_ARGUMENT on page_size, filter, order_by, page_token."""
        size = paging.page_size(request.page_size)
        compiled = compile_filter(request.filter)
        order = order_of(request.order_by, compiled)
        shape = (compiled.canonical, *(f"{by.field} {by.descending}" for by in order))
        listing = paging.Listing(tenant, _METHOD, shape)
        after = self._tokens.read(listing, request.page_token)
        response = ListUsersResponse()
        if compiled.nothing:
            return response
        users, last = await self._fetch(Query(tenant, COLLECTION, compiled.filters, order, after), size)
        response.users.extend(users)
        if last is not None:
            response.next_page_token = self._tokens.issue(listing, _cursor(last, order))
        return response

    async def _fetch(self, query: Query, size: int) -> tuple[list[User], Document | None]:
        """Up to `size` users, and the document of the last one if there are more behind it."""
        found: list[User] = []
        last: Document | None = None
        weight = 0
        after = query.after
        while True:
            step = min(_STEP, size + 1 - len(found))
            page = await self._documents.query(
                Query(query.tenant, query.collection, query.filters, query.order, after, step)
            )
            for document in page:
                user = stored(document).user
                weight += user.ByteSize()
                if len(found) == size or (found and weight > PAGE_BYTES):
                    return found, last
                found.append(user)
                last = document
            if len(page) < step:
                return found, None
            after = _cursor(page[-1], query.order)


def _cursor(document: Document, order: Sequence[Order]) -> tuple[Value, ...]:
    return (*(document.fields[by.field] for by in order), document.key.id)
