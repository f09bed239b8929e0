"""All documents of one service in a Firestore database, for copying.

One query of everything beneath a tenant, or beneath the database, in the order of names, which needs no index. What
belongs to other services is passed over by a jump of the cursor, so that at most a page of it is read each time.
"""

from typing import Any, Final

from google.cloud.firestore_v1.types import query as types

from chassis.store.firestore import FirestoreStore, identified
from chassis.store.firestore_names import decode_id, encode_id
from chassis.store.port import Document, Key

_Structured: Final[Any] = types.StructuredQuery.pb()
_LEAST: Final = " !"
"""Behind a name, it sorts before all that goes on from there, and is no document's id."""
_DEPTH: Final = 4


class FirestoreDump:
    """A `Dumpable` over an open store, which it does not close."""

    def __init__(self, store: FirestoreStore, service: str) -> None:
        self._store = store
        self._service = service

    async def page(self, tenant: str | None, after: Key | None, limit: int) -> list[Document]:
        root = self._store.documents
        parent = root if tenant is None else f"{root}/tenants/{encode_id(tenant)}"
        begin = None if after is None else self._store.name(after)
        while True:
            found = await self._store.scan(_everything(begin, limit), parent)
            mine = [document for each in found if (document := self._mine(each, root)) is not None]
            if mine or len(found) < limit:
                return mine
            begin = self._next(found[-1].name, root, alone=tenant is not None)
            if begin is None:
                return []

    def _mine(self, document: Any, root: str) -> Document | None:
        path = document.name[len(root) + 1 :].split("/")
        if len(path) != _DEPTH or path[0] != "tenants" or self._side(path[2]):
            return None
        tenant, collection = decode_id(path[1]), decode_id(path[2])
        if tenant is None or collection is None:
            raise ValueError("a tenant's or collection's name is too long to be copied")
        return identified(tenant, collection.removeprefix(f"{self._service}-"), document)

    def _side(self, collection: str) -> int:
        """Whether a collection is before the service's (-1), one of them (0) or behind them (1)."""
        if collection == self._service or collection.startswith(f"{self._service}-"):
            return 0
        return -1 if collection < self._service else 1

    def _next(self, last: str, root: str, *, alone: bool) -> str | None:
        """A name from which on there may be documents of the service, when the last one read is not one; None when there
        is none. `alone`: in this tenant."""
        path = last[len(root) + 1 :].split("/")
        if path[0] != "tenants":
            return f"{root}/tenants/{_LEAST}" if path[0] < "tenants" else None
        if len(path) < _DEPTH:
            return last
        side = self._side(path[2])
        if side < 0:
            return f"{root}/tenants/{path[1]}/{self._service}/{_LEAST}"
        if side > 0:
            return None if alone else f"{root}/tenants/{path[1]}{_LEAST}"
        return last


def _everything(begin: str | None, limit: int) -> Any:
    structured = _Structured(from_=[{"all_descendants": True}])
    structured.order_by.add(field={"field_path": "__name__"}, direction=1)
    structured.limit.value = limit
    if begin is not None:
        structured.start_at.values.add(reference_value=begin)
    return structured
