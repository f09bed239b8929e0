"""All documents of an SQLite file, for copying: the file's tables through a connection of its own, read only."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Final

from chassis.store.faults import translated
from chassis.store.port import Document, Key
from chassis.store.values import unpack

_ALL: Final = (
    "SELECT tenant, collection, body FROM documents WHERE (tenant, collection, id) > (?, ?, ?) "
    "ORDER BY tenant, collection, id LIMIT ?"
)
_ONE: Final = (
    "SELECT tenant, collection, body FROM documents WHERE tenant = ? AND (collection, id) > (?, ?) "
    "ORDER BY collection, id LIMIT ?"
)


class SqliteDump:
    """A `Dumpable` over the file of an open store, which keeps other processes out of it."""

    def __init__(self, path: Path) -> None:
        """Raises StoreUnavailable."""
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as failure:
            raise translated(failure) from failure

    async def page(self, tenant: str | None, after: Key | None, limit: int) -> list[Document]:
        return await asyncio.to_thread(self._page, tenant, after, limit)

    async def close(self) -> None:
        await asyncio.to_thread(self._connection.close)

    def _page(self, tenant: str | None, after: Key | None, limit: int) -> list[Document]:
        try:
            if tenant is None:
                start = ("", "", "") if after is None else (after.tenant, after.collection, after.id)
                rows = self._connection.execute(_ALL, (*start, limit)).fetchall()
            else:
                begin = ("", "") if after is None else (after.collection, after.id)
                rows = self._connection.execute(_ONE, (tenant, *begin, limit)).fetchall()
        except sqlite3.Error as failure:
            raise translated(failure) from failure
        return [unpack(*row) for row in rows]
