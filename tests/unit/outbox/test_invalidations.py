"""Invalidations that the cache could not be told after a commit: recorded, and told when it is back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.cache.lease import Lives
from chassis.cache.port import Loaded
from chassis.cache.readthrough import GroupReadThrough, LeaseReadThrough
from chassis.cache.together import together
from chassis.clock import FakeClock, SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.invalidations import MOOT, deliver_invalidations
from chassis.outbox.port import INVALIDATION
from chassis.outbox.records import SCHEMA, all_pending
from chassis.store.landing import Landings
from chassis.store.port import DocumentStore, Key, Put
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from tests.support.deliveries import Office
from tests.support.eventually import eventually
from tests.support.memory_cache import MemoryCache

LIVES = Lives(ttl=3600.0, negative_ttl=3.0, lease_ttl=5.0, jitter=0.1)
BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    store = await SqliteStore.open(tmp_path / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
    yield store
    await store.close()


class Service:
    """One resource, cached by itself and in a group."""

    def __init__(self, store: DocumentStore) -> None:
        self.clock = FakeClock()
        self.cache = MemoryCache(self.clock)
        self.office = Office(store, {INVALIDATION: deliver_invalidations(self.cache, self.clock)}, self.clock)
        self.store = store
        self.landings = Landings(self.clock, self.office.outbox)
        self.single = LeaseReadThrough(self.cache, "dev", LIVES, Metrics())
        self.group = GroupReadThrough(self.cache, "dev:list", LIVES, Metrics())
        self.value = b"1"

    async def read(self) -> tuple[bytes | None, bytes | None]:
        async def load() -> Loaded:
            return Loaded(self.value, "1")

        return await self.single.get("acme/d1", load), await self.group.get("acme", "", load)

    async def change(self, value: bytes) -> None:
        async def invalidate() -> None:
            await together([self.single.invalidate("acme/d1"), self.group.invalidate("acme")])

        await self.landings.commit(self.store, [Put(Key("acme", "devices", "d1"), {"n": value})], invalidate)
        self.value = value

    async def pending(self, count: int) -> None:
        async def there() -> bool:
            return await self.store.count(all_pending()) == count

        await eventually(there, f"{count} records", within=30)

    async def close(self) -> None:
        for owner in (self.landings, self.single, self.group):
            await owner.close()


@pytest.fixture
async def service(store: DocumentStore) -> AsyncIterator[Service]:
    service = Service(store)
    yield service
    await service.close()


async def test_what_the_cache_could_not_be_told_it_is_told_when_it_is_back(service: Service) -> None:
    assert await service.read() == (b"1", b"1")
    service.cache.away = True
    for value in (b"2", b"3", b"4"):
        await service.change(value)
    service.cache.away = False
    assert await service.read() == (b"1", b"1"), "as stale as the TTL allows"
    await service.clock.advance(1)
    await service.pending(1)
    await service.office.relay.walk()
    assert await service.read() == (b"4", b"4")
    assert await service.store.count(all_pending()) == 0


async def test_while_the_cache_is_away_records_wait(service: Service) -> None:
    service.cache.away = True
    await service.change(b"2")
    await service.clock.advance(1)
    await service.pending(1)
    await service.office.relay.walk()
    assert await service.store.count(all_pending()) == 1
    await service.clock.advance(MOOT.total_seconds())
    await service.office.relay.walk()
    assert await service.store.count(all_pending()) == 0, "nothing that it names can be cached any more"


async def test_what_the_cache_was_told_makes_no_record(service: Service) -> None:
    await service.change(b"2")
    await service.clock.advance(5)
    await asyncio.sleep(0)
    assert await service.store.count(all_pending()) == 0
