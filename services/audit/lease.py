"""Whose turn it is, as far as the cache knows. It saves work and nothing else: correctness never asks."""

from chassis.cache.port import Cache, CacheUnavailable


class Turns:
    """`me` names this process; a turn ends by itself after `seconds`."""

    def __init__(self, cache: Cache, prefix: str, me: bytes, seconds: float) -> None:
        self._cache = cache
        self._prefix = prefix
        self._me = me
        self._seconds = seconds

    async def taken(self, tenant: str) -> bool:
        """Whether another process has its turn at the tenant; if none has, it is ours."""
        key = f"{self._prefix}:{{{tenant}}}"
        try:
            holder = await self._cache.get(key)
            if holder is not None and holder != self._me:
                return True
            await self._cache.set(key, self._me, ttl=self._seconds)
        except CacheUnavailable:
            pass  # everybody works, and all but one in vain
        return False
