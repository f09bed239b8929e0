"""The registry of tenants: there with the first device, and written no oftener than that."""

import asyncio

from chassis.clock import SystemClock
from chassis.store.port import Key, StoreUnavailable
from services.devices.records import REGISTRY, TENANTS
from tests.integration.devices.calls import create, refused
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.valkey import Valkey

ACME = Key(REGISTRY, TENANTS, "acme")


async def test_of_many_first_devices_one_brings_the_tenant(devices: Devices, store: CountingStore) -> None:
    await asyncio.gather(*(create(devices, f"d{number}") for number in range(20)))
    assert store.written.count(ACME) == 1
    assert store.commits == 20


async def test_a_tenant_whose_first_device_failed_comes_with_the_next(devices: Devices, store: CountingStore) -> None:
    store.failure = StoreUnavailable("away")
    with refused("STORE_UNAVAILABLE"):
        await create(devices, "d1")
    store.failure = None
    assert await store.get(ACME) is None
    await create(devices, "d2")
    assert await store.get(ACME) is not None


async def test_a_cancelled_first_device_lets_the_others_go_on(devices: Devices, store: CountingStore) -> None:
    store.disk.clear()
    first = asyncio.create_task(create(devices, "d1"))
    await store.begun.wait()
    others = [asyncio.create_task(create(devices, f"e{number}")) for number in range(5)]
    first.cancel()
    await asyncio.wait([first])
    store.disk.set()
    await asyncio.gather(*others)
    assert await store.get(ACME) is not None


async def test_another_replica_finds_the_tenant_there(devices: Devices, store: CountingStore, valkey: Valkey) -> None:
    await create(devices, "d1")
    async with replica(store, valkey, SystemClock()) as other:
        await create(other, "d2")
    assert store.written.count(ACME) == 1
    assert [tenant async for tenant in devices.module.servicer._store.tenants()] == ["acme"]  # type: ignore[attr-defined]
