"""A cache in front of another that fails by chance. Whoever holds it must take every failure for a cache that is away."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis.cache.port import Arg, Cache, CacheUnavailable, Reply, Script
from tests.faults.fate import Fate

_T = TypeVar("_T")


class FaultyCache:
    """The Cache port over `inner`."""

    def __init__(self, inner: Cache, fate: Fate) -> None:
        self._inner = inner
        self.fate = fate

    @property
    def epoch(self) -> str | None:
        return self._inner.epoch

    async def get(self, key: str) -> bytes | None:
        return await self._do(lambda: self._inner.get(key))

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._do(lambda: self._inner.mget(keys))

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        await self._do(lambda: self._inner.set(key, value, ttl=ttl))

    async def delete(self, *keys: str) -> int:
        return await self._do(lambda: self._inner.delete(*keys))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        return await self._do(lambda: self._inner.run(script, keys, args))

    async def close(self) -> None:
        await self._inner.close()

    async def _do(self, do: Callable[[], Awaitable[_T]]) -> _T:
        return await self.fate.befall(do, CacheUnavailable, CacheUnavailable)
