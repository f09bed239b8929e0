"""A document store in front of another that fails by chance: refuses, hangs, is slow, or commits and loses the answer."""

import asyncio
from collections.abc import Sequence

from chassis.store.port import Committed, Document, DocumentStore, Key, Query, StoreTimeout, StoreUnavailable, Write
from tests.faults.fate import Fate


class FaultyStore:
    """The DocumentStore port over `inner`. `reads` and `commits` have fates of their own."""

    def __init__(self, inner: DocumentStore, reads: Fate, commits: Fate) -> None:
        self._inner = inner
        self.reads = reads
        self.commits = commits
        self._accepted: set[asyncio.Future[None]] = set()

    async def get(self, key: Key) -> Document | None:
        return await self.reads.befall(lambda: self._inner.get(key), StoreUnavailable, StoreTimeout)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self.reads.befall(lambda: self._inner.get_many(keys), StoreUnavailable, StoreTimeout)

    async def query(self, query: Query) -> list[Document]:
        return await self.reads.befall(lambda: self._inner.query(query), StoreUnavailable, StoreTimeout)

    async def count(self, query: Query) -> int:
        return await self.reads.befall(lambda: self._inner.count(query), StoreUnavailable, StoreTimeout)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        done = asyncio.get_running_loop().create_future()
        self._accepted.add(done)
        try:
            return await self.commits.befall(lambda: self._inner.commit(writes), StoreUnavailable, StoreTimeout)
        finally:
            self._accepted.discard(done)
            done.cancel()

    async def close(self) -> None:
        await asyncio.gather(*self._accepted, return_exceptions=True)
        await self._inner.close()
