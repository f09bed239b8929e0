"""Ports that cut: a call is cancelled just before, or just after, the n-th time that it asks its store, its cache or another
service. Between two such awaits a handler awaits nothing that lasts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from chassis.cache.port import Arg, Cache, Reply, Script
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write

_T = TypeVar("_T")


class Knife:
    """Counts the places at which it could cut; at `at` it does. What runs on as a task of its own is cut with its caller:
    it is the caller that leaves."""

    def __init__(self) -> None:
        self.places = 0
        self._at: int | None = None
        self._handler: asyncio.Task[Any] | None = None

    async def run(self, handler: Awaitable[Any], at: int | None) -> bool:
        """Whether it was cut. What the handler raises of its own is not looked at: it may have been cut in a retry."""

        async def call() -> object:
            return await handler

        self.places, self._at = 0, at
        self._handler = asyncio.create_task(call())
        await asyncio.wait({self._handler})
        self._at = None
        if not self._handler.cancelled():
            self._handler.result()
        return self._handler.cancelled()

    async def around(self, do: Callable[[], Awaitable[_T]]) -> _T:
        await self._place()
        answer = await do()
        await self._place()
        return answer

    async def _place(self) -> None:
        here, self.places = self.places, self.places + 1
        if here == self._at and self._handler is not None:
            self._handler.cancel()
            await asyncio.sleep(0)


class SteppedStore:
    def __init__(self, inner: DocumentStore, knife: Knife) -> None:
        self._inner = inner
        self._around = knife.around

    async def get(self, key: Key) -> Document | None:
        return await self._around(lambda: self._inner.get(key))

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self._around(lambda: self._inner.get_many(keys))

    async def query(self, query: Query) -> list[Document]:
        return await self._around(lambda: self._inner.query(query))

    async def count(self, query: Query) -> int:
        return await self._around(lambda: self._inner.count(query))

    async def commit(self, writes: Sequence[Write]) -> Committed:
        return await self._around(lambda: self._inner.commit(writes))

    async def close(self) -> None:
        await self._inner.close()


class SteppedCache:
    def __init__(self, inner: Cache, knife: Knife) -> None:
        self._inner = inner
        self._around = knife.around

    @property
    def epoch(self) -> str | None:
        return self._inner.epoch

    async def get(self, key: str) -> bytes | None:
        return await self._around(lambda: self._inner.get(key))

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._around(lambda: self._inner.mget(keys))

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        await self._around(lambda: self._inner.set(key, value, ttl=ttl))

    async def delete(self, *keys: str) -> int:
        return await self._around(lambda: self._inner.delete(*keys))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        return await self._around(lambda: self._inner.run(script, keys, args))

    async def close(self) -> None:
        await self._inner.close()


class SteppedRevoker:
    """The sessions service, for the users service; remembers whose sessions it ended."""

    def __init__(self, knife: Knife) -> None:
        self._around = knife.around
        self.revoked: list[tuple[str, str]] = []

    async def revoke(self, tenant: str, user_id: str) -> None:
        async def do() -> None:
            self.revoked.append((tenant, user_id))

        await self._around(do)
