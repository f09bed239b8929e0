"""Pages of a tenant's users, always from the store."""

from typing import Final

from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import ListUsersRequest, ListUsersResponse
from chassis.api import paging
from chassis.store import pages
from chassis.store.port import Document, DocumentStore, Query
from services.users.cursors import SealedTokens
from services.users.filters import COLLECTION, compile_filter, order_of
from services.users.records import stored

_METHOD: Final = "bas.users.v2.UserService/ListUsers"


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
        page = await pages.fetch(
            self._documents, Query(tenant, COLLECTION, compiled.filters, order, after), size, _read
        )
        response.users.extend(page.items)
        if page.last is not None:
            response.next_page_token = self._tokens.issue(listing, page.last)
        return response


def _read(document: Document) -> tuple[User, int]:
    user = stored(document).user
    return user, user.ByteSize()
