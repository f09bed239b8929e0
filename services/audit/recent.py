"""The newest entries for a dashboard: from the store, or, where the platform is so configured, as they were lately.

Cached: `audit:recent:{<tenant>}`, the newest of a tenant, and only with `BAS_AUDIT_RECENT_CACHE`. Without it there is
nothing here that knows of a cache.
"""

from typing import Final

from bas.audit.v2.audit_service_pb2 import RecentEntriesResponse
from chassis.cache.port import Loaded, ReadThrough
from chassis.clock import Clock
from chassis.errors import invalid_field
from services.audit.reading import Reader

MOST: Final = 100
USUAL: Final = 50

CACHED_BYTES: Final = 256 * 1024
"""What is larger is not kept: it would hold up the cache for everybody else."""


class Recent:
    """`cached` is None when the flag is off."""

    def __init__(self, reader: Reader, cached: ReadThrough | None, clock: Clock) -> None:
        self._reader = reader
        self._cached = cached
        self._clock = clock

    async def page(self, tenant: str, page_size: int) -> RecentEntriesResponse:
        """Raises INVALID_ARGUMENT on page_size."""
        if page_size < 0:
            raise invalid_field("page_size", "must not be negative; 0 means 50")
        size = min(page_size or USUAL, MOST)
        if self._cached is None:
            return await self._read(tenant, size)
        held = await self._cached.get(tenant, lambda: self._load(tenant))
        response = RecentEntriesResponse.FromString(held or b"")
        del response.entries[size:]
        return response

    async def forget(self, tenant: str) -> None:
        """Something that may be shown is to be shown no more."""
        if self._cached is not None:
            await self._cached.invalidate(tenant)

    async def _load(self, tenant: str) -> Loaded:
        data = (await self._read(tenant, MOST)).SerializeToString()
        return Loaded(data, "", max_ttl=0 if len(data) > CACHED_BYTES else None)

    async def _read(self, tenant: str, size: int) -> RecentEntriesResponse:
        as_of = self._clock.now()
        response = RecentEntriesResponse(entries=await self._reader.newest(tenant, size))
        response.as_of.FromDatetime(as_of)
        return response
