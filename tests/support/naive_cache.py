"""The read-through everybody writes first, wrong on purpose: the checkers must catch it."""

from contextlib import suppress

from chassis.cache import lease
from chassis.cache.port import Cache, CacheUnavailable, Load


class NaiveReadThrough:
    """get; on a miss load and set; delete on write. Loses when a write comes between the load and the set."""

    def __init__(self, cache: Cache, prefix: str) -> None:
        self._cache = cache
        self._prefix = prefix

    async def get(self, key: str, load: Load) -> bytes | None:
        name = f"{self._prefix}:{{{key}}}"
        try:
            value = await self._cache.get(name)
            entry = None if value is None else lease.decode(value)
            if entry is not None:
                return entry.data
        except CacheUnavailable:
            pass
        found = await load()
        with suppress(CacheUnavailable):
            await self._cache.set(name, lease.encode(found), ttl=60.0)
        return None if found is None else found.data

    async def invalidate(self, *keys: str) -> bool:
        try:
            await self._cache.delete(*(f"{self._prefix}:{{{key}}}" for key in keys))
        except CacheUnavailable:
            return False
        return True

    async def close(self) -> None:
        pass
