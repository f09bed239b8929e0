"""Heartbeats: what they change, what they cost, and what is left of them when the cache is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    Device,
)
from chassis.clock import FakeClock
from chassis.store.port import StoreUnavailable
from services.devices import scripts
from services.devices.heartbeats import shard_of
from services.devices.presence import RETIRED_RUNS, Beat, Limits, Run, flush_due, follow, lapsed
from tests.integration.devices.calls import beat, count, create, delete, get, refused, set_status
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.valkey import Valkey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def devices(store: CountingStore, valkey: Valkey, clock: FakeClock) -> AsyncIterator[Devices]:
    async with replica(store, valkey, clock, presence=clock) as made:
        with made.tenant("acme"):
            await create(made)
            yield made


async def test_the_first_makes_the_device_online_with_one_write(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    written = store.commits
    answer = await beat(devices, boot="b1", sequence=1)
    assert answer.status == DEVICE_STATUS_ONLINE
    assert 27 <= answer.next_interval.ToMilliseconds() / 1000 <= 30
    seen = await get(devices)
    assert seen.status == DEVICE_STATUS_ONLINE
    assert seen.last_seen_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert store.commits == written + 1


async def test_a_storm_costs_no_write_until_the_flush_is_due(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    """200 devices, ten minutes, a heartbeat each 30 s: 4,000 heartbeats."""
    everyone = [f"s{n}" for n in range(200)]
    for device_id in everyone:
        await create(devices, device_id)
        await beat(devices, device_id, "b1", 1)
    written = store.commits
    await clock.advance(30)
    await asyncio.gather(*(beat(devices, device_id, "b1", 2) for device_id in everyone))
    assert store.commits == written
    for sequence in range(3, 22):
        await clock.advance(30)
        await asyncio.gather(*(beat(devices, device_id, "b1", sequence) for device_id in everyone))
    assert store.commits - written == 200 * 10


async def test_a_flush_is_one_write_however_many_arrive_together(
    devices: Devices, store: CountingStore, clock: FakeClock
) -> None:
    await beat(devices, boot="b1", sequence=1)
    written = store.commits
    await clock.advance(61)
    await asyncio.gather(*(beat(devices, boot="b1", sequence=sequence) for sequence in range(2, 30)))
    assert store.commits == written + 1
    assert (await get(devices)).last_seen_time.ToJsonString() == "2026-01-01T00:01:01Z"


async def test_a_flush_changes_neither_lists_nor_the_update_time(devices: Devices, clock: FakeClock) -> None:
    await beat(devices)
    before = await get(devices)
    await count(devices)
    hits = devices.cached("dev:count")
    await clock.advance(61)
    await beat(devices)
    after = await get(devices)
    assert after.update_time == before.update_time
    assert after.last_seen_time != before.last_seen_time
    await count(devices)
    assert devices.cached("dev:count") == hits + 1


async def test_old_and_repeated_ones_change_nothing(devices: Devices, store: CountingStore, clock: FakeClock) -> None:
    await beat(devices, boot="b1", sequence=5)
    await clock.advance(80)
    written = store.commits
    for sequence in (5, 4, 1, 5):
        assert (await beat(devices, boot="b1", sequence=sequence)).status == DEVICE_STATUS_ONLINE
    assert store.commits == written
    await beat(devices, boot="b2", sequence=1)
    assert store.commits == written + 1
    await clock.advance(61)
    await beat(devices, boot="b1", sequence=99)
    assert store.commits == written + 1


async def test_a_disabled_device_is_refused_until_it_is_back_in_service(devices: Devices) -> None:
    await beat(devices)
    disabled = await set_status(devices, DEVICE_STATUS_DISABLED, reason="stolen")
    assert (disabled.status, disabled.status_reason) == (DEVICE_STATUS_DISABLED, "stolen")
    with refused("DEVICE_DISABLED"):
        await beat(devices)
    with refused("DEVICE_DISABLED"):
        await set_status(devices, DEVICE_STATUS_ONLINE)
    back = await set_status(devices, DEVICE_STATUS_OFFLINE)
    assert (back.status, back.status_reason) == (DEVICE_STATUS_OFFLINE, "")
    assert (await beat(devices)).status == DEVICE_STATUS_ONLINE


async def test_a_status_set_twice_is_written_once(devices: Devices, store: CountingStore) -> None:
    first = await set_status(devices, DEVICE_STATUS_DISABLED, reason="why")
    written = store.commits
    assert await set_status(devices, DEVICE_STATUS_DISABLED, reason="why") == first
    assert store.commits == written
    other = await set_status(devices, DEVICE_STATUS_DISABLED, reason="because")
    assert other.status_time == first.status_time
    assert other.status_reason == "because"


async def test_a_replay_does_not_bring_back_what_was_set_offline(devices: Devices) -> None:
    await beat(devices, boot="b1", sequence=7)
    await set_status(devices, DEVICE_STATUS_OFFLINE)
    assert (await beat(devices, boot="b1", sequence=7)).status == DEVICE_STATUS_OFFLINE
    assert (await beat(devices, boot="b1", sequence=8)).status == DEVICE_STATUS_ONLINE


async def test_a_device_that_is_not_there(devices: Devices) -> None:
    with refused("DEVICE_NOT_FOUND"):
        await beat(devices, "none")
    with devices.tenant("other"), refused("DEVICE_NOT_FOUND"):
        await beat(devices)


async def test_a_device_made_again_starts_anew(devices: Devices) -> None:
    await beat(devices, boot="b1", sequence=7)
    await delete(devices)
    await create(devices)
    assert (await get(devices)).status == DEVICE_STATUS_NEVER_SEEN
    assert (await beat(devices, boot="b1", sequence=1)).status == DEVICE_STATUS_ONLINE


async def test_a_retry_finishes_what_the_store_had_refused(devices: Devices, store: CountingStore) -> None:
    store.failure = StoreUnavailable()
    with refused("STORE_UNAVAILABLE"):
        await beat(devices, boot="b1", sequence=1)
    store.failure = None
    assert (await beat(devices, boot="b1", sequence=1)).status == DEVICE_STATUS_ONLINE


async def test_a_flush_that_failed_is_made_up_for(devices: Devices, store: CountingStore, clock: FakeClock) -> None:
    await beat(devices, boot="b1", sequence=1)
    await clock.advance(61)
    store.failure = StoreUnavailable()
    assert (await beat(devices, boot="b1", sequence=2)).status == DEVICE_STATUS_ONLINE
    store.failure = None
    await clock.advance(1)
    await beat(devices, boot="b1", sequence=3)
    assert (await get(devices)).last_seen_time.ToJsonString() == "2026-01-01T00:01:02Z"


async def test_without_the_cache_the_store_is_written_now_and_then(
    store: CountingStore, own_valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, own_valkey, clock, presence=clock) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await own_valkey.kill()
            written = store.commits
            assert (await beat(devices, boot="b1", sequence=1)).status == DEVICE_STATUS_ONLINE
            for sequence in range(2, 30):
                await clock.advance(1)
                await beat(devices, boot="b1", sequence=sequence)
            assert store.commits == written + 1
            await clock.advance(2)
            await beat(devices, boot="b1", sequence=30)
            assert store.commits == written + 2
            await clock.advance(31)
            await beat(devices, boot="b1", sequence=29)
            assert store.commits == written + 2, "an old one is old for the store, too"


async def test_a_stalled_cache_costs_a_heartbeat_time_and_nothing_else(
    store: CountingStore, own_valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, own_valkey, clock, presence=clock, op_timeout=0.5) as devices:
        with devices.tenant("acme"):
            await create(devices)
            own_valkey.pause()
            try:
                assert (await beat(devices, boot="b1", sequence=1)).status == DEVICE_STATUS_ONLINE
                assert (await get(devices)).status == DEVICE_STATUS_ONLINE
            finally:
                own_valkey.resume()


LIMITS = Limits(interval=30_000, offline_after=90_000, flush_interval=60_000)

BEATS = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "c", "d", "e", "f", "g"]),
        st.sampled_from([0, 1, 2, 3, 9, 10, 2**53, 2**53 + 1, 2**63 - 1]),
        st.sampled_from([0, 1, 30_000, 60_000, 90_000]),
    ),
    max_size=25,
)


@given(BEATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_follows_the_rule(valkey: Valkey, beats: list[tuple[str, int, int]]) -> None:
    valkey.command("DEL", "{t}/s", "{t}/due")
    run, last, flushed, now = Run(), 0, 0, 1_700_000_000_000
    for boot, sequence, pause in beats:
        now += pause
        following = follow(run, Beat(boot, sequence))
        fresh = following is not None
        flush = fresh and flush_due(last, flushed, now, LIMITS)
        live = fresh or not lapsed(last, now, LIMITS.offline_after)
        if following is not None:
            run, last, flushed = following, now, now if flush else flushed
        arguments: list[str | int] = [
            now,
            "t/d",
            boot,
            f"{sequence:019d}",
            LIMITS.offline_after,
            LIMITS.flush_interval,
            RETIRED_RUNS,
        ]
        answer = valkey.command("EVAL", scripts.BEAT.source, 2, "{t}/s", "{t}/due", *arguments)
        assert answer == [int(fresh), int(live), int(flush), now]
        if fresh:
            assert valkey.command("ZSCORE", "{t}/due", "t/d") == now + LIMITS.offline_after


def test_devices_are_spread_over_the_shards() -> None:
    assert len({shard_of("acme", f"d{n}") for n in range(2000)}) == 64


async def test_keys_of_presence_are_bounded_in_time(devices: Devices, valkey: Valkey) -> None:
    await beat(devices)
    states = [key for key in valkey.command("KEYS", "*") if b"/s/" in key]
    assert len(states) == 1
    assert 0 < valkey.command("PTTL", states[0]) <= 10 * LIMITS.offline_after


async def test_a_heartbeat_between_two_writers_loses_neither(devices: Devices) -> None:
    """Status changes by heartbeat and by hand race; whoever is last, the device is in one of the two states."""
    await asyncio.gather(
        *(beat(devices, boot="b1", sequence=n) for n in range(1, 6)),
        set_status(devices, DEVICE_STATUS_DISABLED),
        return_exceptions=True,
    )
    device = await get(devices)
    assert isinstance(device, Device)
    assert device.status == DEVICE_STATUS_DISABLED
