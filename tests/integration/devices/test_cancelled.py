"""Clients that leave in the middle: what had begun is seen to its end, and leaves nothing stale or claimed behind."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

import pytest

from bas.devices.v2.devices_pb2 import Device
from chassis.clock import FakeClock, SystemClock
from chassis.config import Config
from chassis.store.landing import Landings
from chassis.store.port import StoreUnavailable
from services.devices import module
from services.devices.heartbeats import Heard, Heartbeats
from services.devices.presence import Beat
from services.devices.records import document_key, stored
from tests.integration.devices.calls import beat, count, create, delete, get, ids, update
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.eventually import eventually
from tests.support.valkey import Valkey

T = TypeVar("T")


async def abandoned(call: Coroutine[Any, Any, object], store: CountingStore) -> None:
    """The call, whose client leaves when the commit has begun and before it has landed."""
    store.begun.clear()
    store.disk.clear()
    running = asyncio.create_task(call)
    await store.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_update_that_lands_after_its_client_left_is_seen(devices: Devices, store: CountingStore) -> None:
    await create(devices, type="old")
    await abandoned(update(devices, Device(device_id="d1", type="new"), "type"), store)
    assert (await get(devices)).type == "old"  # and is cached
    assert await ids(devices, filter="type = old") == ["d1"]
    store.disk.set()

    async def new() -> bool:
        return (await get(devices)).type == "new" and await ids(devices, filter="type = old") == []

    await eventually(new, "the update is seen")


async def test_a_create_and_a_delete_too(devices: Devices, store: CountingStore) -> None:
    await create(devices, "gone")
    await abandoned(create(devices, "made"), store)
    assert await ids(devices) == ["gone"]
    store.disk.set()
    await eventually(lambda: _counted(devices, 2), "the create is seen")
    await get(devices, "gone")
    await abandoned(delete(devices, "gone"), store)
    await get(devices, "gone")
    store.disk.set()
    await eventually(lambda: _counted(devices, 1), "the delete is seen")
    assert await ids(devices) == ["made"]


async def _counted(devices: Devices, expected: int) -> bool:
    return sum((await count(devices)).values()) == expected


class Forgetful(Landings):
    """The seeded bug: work is the caller's own, and ends with it."""

    async def land(self, work: Coroutine[Any, Any, T]) -> T:
        return await work


async def test_work_that_ends_with_its_caller_leaves_the_cache_stale(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Landings", Forgetful)
    landing: list[asyncio.Task[object]] = []

    class Disk(CountingStore):
        """Once begun, a commit lands, whether or not somebody waits for it: as a disk does."""

        async def commit(self, writes: Any) -> Any:
            landing.append(asyncio.create_task(super().commit(writes)))
            return await asyncio.shield(landing[-1])

    disk = Disk(store)
    async with replica(disk, valkey, SystemClock()) as devices:
        with devices.tenant("acme"):
            await create(devices, type="old")
            await abandoned(update(devices, Device(device_id="d1", type="new"), "type"), disk)
            await get(devices)
            disk.disk.set()
            await landing[-1]
            assert (await get(devices)).type == "old", "this test would not see a stale cache"


@pytest.fixture
async def beating(store: CountingStore, valkey: Valkey) -> Any:
    presence = FakeClock()
    config = Config()
    async with replica(store, valkey, SystemClock(), config, presence=presence) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await beat(devices, boot="b", sequence=1)
            yield devices, presence, config.devices.flush_interval


async def last_seen(store: CountingStore) -> int:
    document = await store.get(document_key("acme", "d1"))
    assert document is not None
    return stored(document).last_seen


async def test_a_flush_whose_client_left_lands_or_is_taken_back(
    beating: tuple[Devices, FakeClock, float], store: CountingStore
) -> None:
    devices, presence, interval = beating
    await presence.advance(interval)
    before = await last_seen(store)
    await abandoned(beat(devices, boot="b", sequence=2), store)
    store.failure = StoreUnavailable()
    store.disk.set()
    await nothing_is_under_way()
    store.failure = None
    await beat(devices, boot="b", sequence=3)
    assert await last_seen(store) >= before + interval * 1000


async def nothing_is_under_way() -> None:
    def ended() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name() == "landing"]

    await eventually(ended, "nothing is under way")


class SlowToAnswer(Heartbeats):
    """The script has run, and its answer is on the way."""

    ran: ClassVar[asyncio.Event]

    async def beat(self, tenant: str, device_id: str, beat: Beat) -> Heard:
        heard = await super().beat(tenant, device_id, beat)
        if beat.boot == "slow":
            self.ran.set()
            await asyncio.Event().wait()
        return heard


async def test_a_claim_whose_answer_nobody_waits_for_is_taken_back(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowToAnswer.ran = asyncio.Event()
    monkeypatch.setattr(module, "Heartbeats", SlowToAnswer)
    presence = FakeClock()
    async with replica(store, valkey, SystemClock(), presence=presence) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await beat(devices, boot="b", sequence=1)
            await presence.advance(Config().devices.flush_interval)
            leaving = asyncio.create_task(beat(devices, boot="slow", sequence=1))
            await SlowToAnswer.ran.wait()
            leaving.cancel()
            await asyncio.wait([leaving])
            await nothing_is_under_way()
            await beat(devices, boot="c", sequence=1)
            assert await last_seen(store) == int(presence.now().timestamp() * 1000)
