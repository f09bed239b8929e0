"""Devices that fall silent turn offline: once, and only when silence is certain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
)
from chassis.cache.port import CacheUnavailable
from chassis.clock import FakeClock, SystemClock
from chassis.config import Config, Seconds
from chassis.config import Devices as Budgets
from services.devices.records import document_key
from tests.integration.devices.calls import beat, count, create, delete, get, ids, set_status
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.eventually import eventually
from tests.support.valkey import Valkey

OFFLINE_AFTER = 90


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def devices(store: CountingStore, valkey: Valkey, clock: FakeClock) -> AsyncIterator[Devices]:
    """d1 … d3, heard of once, by a service that has watched for long enough to judge."""
    async with replica(store, valkey, clock, presence=clock) as made:
        with made.tenant("acme"):
            await watch(made, clock, OFFLINE_AFTER)
            for device_id in ("d1", "d2", "d3"):
                await create(made, device_id)
                await beat(made, device_id, "b1", 1)
            yield made


async def watch(devices: Devices, clock: FakeClock, seconds: int) -> int:
    """Let time pass under a sweep each 5 s; how many devices turned offline."""
    turned = await devices.sweep.due()
    for _ in range(seconds // 5):
        await clock.advance(5)
        turned += await devices.sweep.due()
    return turned


async def test_a_silent_device_turns_offline_at_the_bound_and_once(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    await count(devices)
    await ids(devices, filter="status = ONLINE")
    assert await watch(devices, clock, OFFLINE_AFTER - 5) == 0
    await beat(devices, "d3", "b1", 2)
    written = store.commits
    assert await watch(devices, clock, 5) == 2
    assert await watch(devices, clock, 60) == 0
    assert store.commits == written + 2
    assert await count(devices) == {"OFFLINE": 2, "ONLINE": 1}
    assert await ids(devices, filter="status = ONLINE") == ["d3"]
    silent = await get(devices, "d1")
    assert silent.status == DEVICE_STATUS_OFFLINE
    assert silent.status_time.ToJsonString() == "2026-01-01T00:03:00Z"
    assert (await beat(devices, "d1", "b1", 2)).status == DEVICE_STATUS_ONLINE


async def test_of_three_that_sweep_together_one_turns_each_device(
    store: CountingStore, valkey: Valkey, clock: FakeClock
) -> None:
    everyone = [f"d{n}" for n in range(40)]
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(store, valkey, clock, presence=clock)) for _ in range(3)]
        with replicas[0].tenant("acme"):
            await watch(replicas[0], clock, OFFLINE_AFTER)
            for device_id in everyone:
                await create(replicas[0], device_id)
                await beat(replicas[0], device_id)
            await watch(replicas[0], clock, OFFLINE_AFTER - 5)
            await clock.advance(5)
            turned = await asyncio.gather(*(each.sweep.due() for each in replicas))
            assert sum(turned) == len(everyone)
            assert await count(replicas[0]) == {"OFFLINE": len(everyone)}
    offline = [key.id for key in store.written if key.collection == "devices"]
    assert all(offline.count(device_id) == 3 for device_id in everyone), "created, online, offline: once each"


async def test_racing_looks_at_one_device_turn_it_once(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    await watch(devices, clock, OFFLINE_AFTER - 5)
    await clock.advance(5)
    written = store.commits
    turned = await asyncio.gather(*(devices.sweep._look_into("acme", "d1") for _ in range(10)))
    assert sorted(turned) == [0] * 9 + [1]
    assert store.commits == written + 1


async def test_it_would_turn_more_often_without_versions(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    """A seeded bug: the check above must be able to fail."""
    await watch(devices, clock, OFFLINE_AFTER - 5)
    await clock.advance(5)
    store.ignore_versions = True
    turned = await asyncio.gather(*(devices.sweep._look_into("acme", "d1") for _ in range(10)))
    assert sum(turned) > 1


async def test_disabled_removed_and_never_seen_devices_are_left_alone(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    await create(devices, "new")
    await set_status(devices, DEVICE_STATUS_DISABLED, "d1")
    await delete(devices, "d2")
    assert await watch(devices, clock, 2 * OFFLINE_AFTER) == 1
    assert await count(devices) == {"NEVER_SEEN": 1, "DISABLED": 1, "OFFLINE": 1}
    assert (await get(devices, "new")).status == DEVICE_STATUS_NEVER_SEEN


async def test_a_device_that_is_set_online_by_hand_must_beat_to_stay(devices: Devices, clock: FakeClock) -> None:
    await create(devices, "d9")
    assert (await set_status(devices, DEVICE_STATUS_ONLINE, "d9")).status == DEVICE_STATUS_ONLINE
    await watch(devices, clock, OFFLINE_AFTER)
    assert (await get(devices, "d9")).status == DEVICE_STATUS_OFFLINE


async def test_a_heartbeat_after_the_lapse_and_a_sweep_agree(devices: Devices, clock: FakeClock) -> None:
    """Whichever commits first, the device that was heard of ends online."""
    await watch(devices, clock, OFFLINE_AFTER - 5)
    await clock.advance(5)
    await asyncio.gather(devices.sweep.due(), beat(devices, "d1", "b1", 2))
    assert (await get(devices, "d1")).status == DEVICE_STATUS_ONLINE
    assert await watch(devices, clock, 30) == 0
    assert (await get(devices, "d1")).status == DEVICE_STATUS_ONLINE


async def test_while_nobody_watched_nobody_is_judged(devices: Devices, clock: FakeClock) -> None:
    """All replicas were down, or cut off from the cache, for an hour: devices have their whole time to be heard."""
    await clock.advance(3600)
    assert await watch(devices, clock, OFFLINE_AFTER - 5) == 0
    assert await devices.sweep.forgotten() == 0
    await beat(devices, "d1", "b1", 2)
    assert await watch(devices, clock, 5) == 2
    assert (await get(devices, "d1")).status == DEVICE_STATUS_ONLINE


async def test_an_empty_restart_of_the_cache_makes_nobody_offline(
    store: CountingStore, own_valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, own_valkey, clock, presence=clock) as devices:
        with devices.tenant("acme"):
            await watch(devices, clock, OFFLINE_AFTER)
            for device_id in ("talking", "silent"):
                await create(devices, device_id)
                await beat(devices, device_id, "b1", 1)
            await clock.advance(5)
            await own_valkey.kill()
            with pytest.raises(CacheUnavailable):
                await devices.sweep.due()
            for sequence in range(2, 8):
                await clock.advance(30)
                await beat(devices, "talking", "b1", sequence)
            await own_valkey.restart()

            async def back() -> bool:
                try:
                    return await devices.sweep.due() == 0
                except CacheUnavailable:
                    return False

            await eventually(back, "the cache answers again")
            assert await count(devices) == {"ONLINE": 2}
            for sequence in range(8, 10):
                assert await watch(devices, clock, 40) == 0
                assert await devices.sweep.forgotten() == 0
                await beat(devices, "talking", "b1", sequence)
            assert await watch(devices, clock, 10) == 0, "the cache never heard of the silent one"
            assert await devices.sweep.forgotten() == 1
            assert (await get(devices, "silent")).status == DEVICE_STATUS_OFFLINE
            assert (await get(devices, "talking")).status == DEVICE_STATUS_ONLINE


async def test_an_old_snapshot_of_the_cache_makes_nobody_offline(
    devices: Devices, valkey: Valkey, clock: FakeClock
) -> None:
    snapshot = {key: valkey.command("DUMP", key) for key in valkey.command("KEYS", "{hb:*")}
    for sequence in range(2, 12):
        await watch(devices, clock, 30)
        await beat(devices, "d1", "b1", sequence)
    assert await count(devices) == {"ONLINE": 1, "OFFLINE": 2}
    await beat(devices, "d2", "b1", 2)
    for key, value in snapshot.items():
        valkey.command("RESTORE", key, 0, value, "REPLACE")
    assert await watch(devices, clock, OFFLINE_AFTER - 5) == 0
    await beat(devices, "d1", "b1", 12)
    assert await watch(devices, clock, 5) == 1, "d2 was silent all the while"
    assert (await get(devices, "d1")).status == DEVICE_STATUS_ONLINE


async def test_heartbeats_that_reach_a_replica_without_the_cache_count(
    devices: Devices, store: CountingStore, own_valkey: Valkey, clock: FakeClock
) -> None:
    """One replica is cut off from the cache and takes the device's heartbeats; the other sweeps."""
    async with replica(store, own_valkey, clock, presence=clock) as cut_off:
        await own_valkey.kill()
        for sequence in range(2, 12):
            await watch(devices, clock, 25)
            assert (await beat(cut_off, "d1", "b1", sequence)).status == DEVICE_STATUS_ONLINE
            stored = await devices.store.get(document_key("acme", "d1"))
            assert stored is not None
            assert stored.fields["status"] == "DEVICE_STATUS_ONLINE"
    assert (await get(devices, "d2")).status == DEVICE_STATUS_OFFLINE


async def test_what_the_cache_lost_is_found_in_the_store_of_every_tenant(
    devices: Devices, valkey: Valkey, clock: FakeClock
) -> None:
    with devices.tenant("other"):
        await create(devices, "d1")
        await beat(devices, "d1")
    for key in valkey.command("KEYS", "{hb:*"):
        valkey.command("DEL", key)
    assert await watch(devices, clock, OFFLINE_AFTER + 65) == 0
    assert await devices.sweep.forgotten() == 4
    assert await devices.sweep.forgotten() == 0
    with devices.tenant("other"):
        assert await count(devices) == {"OFFLINE": 1}


async def test_the_loop_goes_on_when_a_round_fails(store: CountingStore, own_valkey: Valkey) -> None:
    config = Config(devices=Budgets(offline_after=Seconds(1), flush_interval=Seconds(1), sweep_interval=Seconds(0.1)))
    async with replica(store, own_valkey, SystemClock(), config) as devices:
        (background,) = devices.module.background
        loop = asyncio.ensure_future(background.run())
        try:
            with devices.tenant("acme"):
                await create(devices)
                await own_valkey.kill()
                await eventually(lambda: devices.sample("bas_devices_sweep_failures_total") > 0, "a round failed")
                await own_valkey.restart()
                await eventually(lambda: own_valkey.command("DBSIZE") > 0, "the sweep is back")
                assert (await beat(devices)).status == DEVICE_STATUS_ONLINE

                async def offline() -> bool:
                    return (await get(devices)).status == DEVICE_STATUS_OFFLINE

                await eventually(offline, "the device is offline")
                await eventually(lambda: devices.sample("bas_devices_lapsed_total") == 1, "it is counted")
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
