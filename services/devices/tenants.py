"""The registry of tenants: a document for each that ever registered a device, so that a sweep finds them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from chassis.store.port import DocumentStore, Key, Put, Query, Write
from services.devices.records import REGISTRY, TENANTS

KNOWN_TENANTS: Final = 10_000

_PAGE: Final = 100


class Tenants:
    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._known: dict[str, None] = {}
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def entering(self, tenant: str) -> AsyncIterator[list[Write]]:
        """What has to be committed with a device of the tenant; when the block ends well, it was.

        The registry's document is never hot: it is written only when it is not there, and of many callers at once by
        one, for which the others wait.
        """
        if tenant not in self._known:
            lock = self._asking.setdefault(tenant, asyncio.Lock())
            async with lock:
                if tenant not in self._known and await self._documents.get(_key(tenant)) is None:
                    yield [Put(_key(tenant), {})]
                    self._remember(tenant)
                    return
                self._remember(tenant)
        yield []

    async def all(self) -> AsyncIterator[str]:
        """Every tenant that ever registered a device."""
        after: tuple[str, ...] | None = None
        while True:
            page = await self._documents.query(Query(REGISTRY, TENANTS, after=after, limit=_PAGE))
            for document in page:
                yield document.key.id
            if len(page) < _PAGE:
                return
            after = (page[-1].key.id,)

    def _remember(self, tenant: str) -> None:
        if tenant not in self._known and len(self._known) >= KNOWN_TENANTS:
            self._known.pop(next(iter(self._known)))
        self._known[tenant] = None


def _key(tenant: str) -> Key:
    return Key(REGISTRY, TENANTS, tenant)
