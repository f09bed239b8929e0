"""Every change of a device commits its events, and nothing else does: on each real store, with an outbox that nobody
empties."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    Device,
    Reading,
)
from bas.devices.v2.devices_service_pb2 import ReportTelemetryRequest
from chassis.clock import FakeClock
from chassis.store.port import StoreUnavailable
from services.devices.registry import TOGETHER, TOGETHER_BYTES
from tests.integration.devices import calls
from tests.integration.devices.calls import create, refused, set_status
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.outbox import LosingStore, RecordingOutbox, Told
from tests.support.valkey import Valkey

Act: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Watched:
    """A replica whose outbox is looked into."""

    devices: Devices
    store: LosingStore
    outbox: RecordingOutbox
    clock: FakeClock

    async def told(self) -> list[Told]:
        return await self.outbox.told(self.store)

    async def types(self) -> list[str]:
        return await self.outbox.types(self.store)


@pytest.fixture
async def watched(store: CountingStore, valkey: Valkey) -> AsyncIterator[Watched]:
    lossy, outbox, clock = LosingStore(store), RecordingOutbox(), FakeClock()
    async with replica(CountingStore(lossy), valkey, clock, presence=clock, outbox=outbox) as devices:
        with devices.tenant("acme"):
            yield Watched(devices, lossy, outbox, clock)


async def test_the_life_of_a_device_is_told_in_order(watched: Watched) -> None:
    devices = watched.devices
    await create(devices, labels={"site": "north"})
    await calls.update(devices, Device(device_id="d1", display_name="Boiler"), "display_name")
    await calls.beat(devices)
    await set_status(devices, DEVICE_STATUS_DISABLED, reason="broken")
    await set_status(devices, DEVICE_STATUS_OFFLINE)
    await calls.delete(devices)
    told = await watched.told()
    assert [each.type for each in told] == [
        "device.created",
        "device.updated",
        "device.online",
        "device.disabled",
        "device.enabled",
        "device.deleted",
    ]
    assert {(each.tenant, each.subject, each.source) for each in told} == {("acme", "devices/d1", "/bas/devices")}
    assert {(each.data["actor"], each.data["requestId"]) for each in told} == {("tester", "r1")}
    assert len({each.key for each in told}) == 1
    assert len({each.id for each in told}) == len(told)
    assert told[0].data["device"]["labels"] == {"site": "north"}
    assert told[1].data["changedPaths"] == ["displayName"]
    assert told[3].data["reason"] == "broken"
    assert told[5].data["device"] == {"deviceId": "d1"}
    assert watched.outbox.wakes == len(told)


async def test_what_changes_nothing_tells_nothing(watched: Watched) -> None:
    devices = watched.devices
    made = await create(devices, "d1", "q1", display_name="Boiler")
    await calls.beat(devices)
    before, wakes = await watched.types(), watched.outbox.wakes
    assert await create(devices, "d1", "q1", display_name="Boiler") == made
    await calls.update(devices, Device(device_id="d1", display_name="Boiler"), "display_name")
    await set_status(devices, DEVICE_STATUS_ONLINE)
    await calls.get(devices)
    await devices.api.ReportTelemetry(
        ReportTelemetryRequest(device_id="d1", readings={"door": Reading(bool_value=True)})
    )
    commits = devices.store.commits
    await watched.clock.advance(61)
    await calls.beat(devices)  # flushed: it was seen
    await watched.clock.advance(61)
    await set_status(devices, DEVICE_STATUS_ONLINE)  # the same by hand
    assert devices.store.commits == commits + 2
    refusals: list[tuple[str, Act]] = [
        ("DEVICE_ALREADY_EXISTS", lambda: create(devices, "d1")),
        ("DEVICE_NOT_FOUND", lambda: calls.delete(devices, "none")),
        ("ETAG_MISMATCH", lambda: calls.update(devices, Device(device_id="d1", type="x", etag="stale"), "type")),
        ("ETAG_MISMATCH", lambda: calls.delete(devices, "d1", "stale")),
    ]
    for reason, act in refusals:
        with refused(reason):
            await act()
    assert await watched.types() == before == ["device.created", "device.online"]
    assert watched.outbox.wakes == wakes


async def test_of_many_sweeps_one_tells_that_a_device_went_offline(
    watched: Watched, store: CountingStore, valkey: Valkey
) -> None:
    devices, clock = watched.devices, watched.clock
    await create(devices)
    await calls.beat(devices)
    async with replica(store, valkey, clock, presence=clock, outbox=watched.outbox) as other:
        for _ in range(20):
            await clock.advance(5)
            rounds = (asyncio.create_task(each.sweep.due(), context=Context()) for each in (devices, other))
            await asyncio.gather(*rounds)
    told = await watched.told()
    assert [each.type for each in told] == ["device.created", "device.online", "device.offline"]
    assert told[2].data["actor"] == "service:devices"
    assert told[2].data["previousStatus"] == "DEVICE_STATUS_ONLINE"


async def test_a_batch_tells_of_what_it_made_and_of_nothing_else(watched: Watched) -> None:
    await create(watched.devices, "b7")
    some = [Device(device_id=f"b{number}") for number in range(2 * TOGETHER + 3)]
    answer = await calls.batch(watched.devices, some, "q1")
    assert [number for number, each in enumerate(answer.results) if each.HasField("error")] == [7]
    again = await calls.batch(watched.devices, some, "q1")
    assert [each.device for each in again.results] == [each.device for each in answer.results]
    told = await watched.told()
    assert {each.type for each in told} == {"device.created"}
    assert sorted(each.subject for each in told) == sorted(f"devices/b{number}" for number in range(len(some)))


async def test_the_heaviest_batch_and_its_events_fit_their_commits(watched: Watched) -> None:
    heavy = {f"{number:02d}" + "k" * 62: "v" * 500 for number in range(60)}
    some = [Device(device_id=f"h{number}", labels=heavy) for number in range(64)]
    assert sum(each.ByteSize() for each in some) > 2 * TOGETHER_BYTES
    light = [
        Device(device_id=f"l{number}", metadata={f"{key:02d}": "" for key in range(64)}) for number in range(TOGETHER)
    ]
    for batch in (some, light):
        answer = await calls.batch(watched.devices, batch, f"q{len(batch)}")
        assert not any(each.HasField("error") for each in answer.results)
    assert len(await watched.told()) == len(some) + len(light)


async def test_a_change_that_was_not_committed_is_not_told(watched: Watched) -> None:
    await create(watched.devices)
    acts: list[Act] = [
        lambda: create(watched.devices, "d2"),
        lambda: calls.update(watched.devices, Device(device_id="d1", type="boiler"), "type"),
        lambda: set_status(watched.devices, DEVICE_STATUS_DISABLED),
        lambda: calls.delete(watched.devices),
    ]
    for act in acts:
        watched.store.failure = StoreUnavailable()
        with refused("STORE_UNAVAILABLE"):
            await act()
    assert await watched.types() == ["device.created"]


async def test_a_change_whose_answer_was_lost_is_told_once_also_when_it_is_repeated(watched: Watched) -> None:
    devices = watched.devices
    acts: list[Act] = [
        lambda: create(devices, "d1", "q1"),
        lambda: calls.update(devices, Device(device_id="d1", type="boiler"), "type"),
        lambda: set_status(devices, DEVICE_STATUS_DISABLED, reason="x"),
        lambda: calls.delete(devices, allow_missing=True),
    ]
    for act in acts:
        watched.store.lost = 1
        wakes = watched.outbox.wakes
        with refused("STORE_TIMEOUT"):
            await act()
        assert watched.outbox.wakes > wakes
        await act()
    assert await watched.types() == ["device.created", "device.updated", "device.disabled", "device.deleted"]


async def test_of_changes_that_race_each_is_told_once(watched: Watched) -> None:
    devices = watched.devices
    await create(devices)
    await asyncio.gather(
        *(
            calls.update(devices, Device(device_id="d1", metadata={f"k{number}": "v"}), f"metadata.k{number}")
            for number in range(5)
        )
    )
    told = await watched.told()
    assert [each.type for each in told] == ["device.created", *["device.updated"] * 5]
    sizes = sorted(len(each.data["device"]["metadata"]) for each in told[1:])
    assert sizes == [1, 2, 3, 4, 5]  # each from what it was committed upon


async def test_a_record_that_is_not_in_the_commit_of_its_change_would_be_found(watched: Watched) -> None:
    watched.store.torn = True
    await create(watched.devices)
    watched.store.failure = StoreUnavailable()
    with refused("STORE_UNAVAILABLE"):
        await create(watched.devices, "d2")
    assert await watched.types() == ["device.created", "device.created"]  # of one that is not there
    with refused("DEVICE_NOT_FOUND"):
        await calls.get(watched.devices, "d2")
