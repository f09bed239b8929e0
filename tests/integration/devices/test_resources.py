"""Creating, reading, changing and removing devices."""

import asyncio

import pytest

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_NEVER_SEEN, Device
from chassis.cache.readthrough import LeaseReadThrough
from chassis.clock import SystemClock
from chassis.errors import ApiError, Code
from chassis.store.port import StoreUnavailable
from tests.integration.devices.calls import create, delete, get, refused, update
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.valkey import Valkey


async def test_a_created_device_is_read_as_it_was_answered(devices: Devices) -> None:
    made = await create(devices, display_name="Boiler 7", labels={"site": "north"})
    assert made.status == DEVICE_STATUS_NEVER_SEEN
    assert made.etag
    assert made.create_time == made.update_time == made.status_time
    assert await get(devices) == made
    assert await get(devices) == made
    with refused("DEVICE_ALREADY_EXISTS"):
        await create(devices)


async def test_an_id_that_is_left_out_is_made(devices: Devices) -> None:
    one, other = await create(devices, ""), await create(devices, "")
    assert one.device_id != other.device_id
    assert await get(devices, one.device_id) == one


async def test_a_created_device_is_found_where_it_was_missed_before(devices: Devices) -> None:
    with refused("DEVICE_NOT_FOUND"):
        await get(devices)
    made = await create(devices)
    assert await get(devices) == made


async def test_another_tenants_device_is_missing_in_the_same_words(devices: Devices) -> None:
    await create(devices, "theirs")
    with devices.tenant("other"):
        for call in (
            get(devices, "theirs"),
            update(devices, Device(device_id="theirs", type="x")),
            delete(devices, "theirs"),
        ):
            with pytest.raises(ApiError) as theirs:
                await call
            assert (theirs.value.code, theirs.value.reason) == (Code.NOT_FOUND, "DEVICE_NOT_FOUND")
            assert theirs.value.message == "There is no device 'theirs'."
            assert not theirs.value.metadata
        mine = await create(devices, "theirs", type="mine")
        assert await get(devices, "theirs") == mine
    assert (await get(devices, "theirs")).type == ""


@pytest.mark.parametrize("pair", [("a.b", "c", "a", "b.c"), ("a-b", "c", "a", "b-c"), ("a~", "b", "a", "~b")])
async def test_no_two_tenants_share_a_key(devices: Devices, pair: tuple[str, str, str, str]) -> None:
    tenant, device_id, other_tenant, other_id = pair
    with devices.tenant(tenant):
        await create(devices, device_id, type="first")
        await get(devices, device_id)
    with devices.tenant(other_tenant), refused("DEVICE_NOT_FOUND"):
        await get(devices, other_id)


class TestRequestId:
    async def test_a_repetition_returns_the_first_answer(self, devices: Devices, store: CountingStore) -> None:
        first = await create(devices, "", request_id="r1", type="boiler")
        written = store.commits
        await update(devices, Device(device_id=first.device_id, type="other"), "type")
        again = await create(devices, "", request_id="r1", type="boiler")
        assert again == first
        assert store.commits == written + 1

    async def test_it_does_so_with_a_given_id_and_when_the_device_is_gone(self, devices: Devices) -> None:
        first = await create(devices, "d1", request_id="r1")
        assert await create(devices, "d1", request_id="r1") == first
        await delete(devices)
        assert await create(devices, "d1", request_id="r1") == first
        with refused("DEVICE_NOT_FOUND"):
            await get(devices)

    async def test_it_belongs_to_one_request(self, devices: Devices) -> None:
        await create(devices, "d1", request_id="r1")
        with refused("REQUEST_ID_REUSED"):
            await create(devices, "d2", request_id="r1")
        with devices.tenant("other"):
            await create(devices, "d2", request_id="r1")

    async def test_another_request_for_the_same_device_is_a_stranger(self, devices: Devices) -> None:
        await create(devices, "d1", request_id="r1")
        with refused("DEVICE_ALREADY_EXISTS"):
            await create(devices, "d1", request_id="r2")

    async def test_twins_make_one_device(self, devices: Devices) -> None:
        answers = await asyncio.gather(*(create(devices, "", request_id="r1") for _ in range(10)))
        assert len({answer.device_id for answer in answers}) == 1
        assert len({answer.etag for answer in answers}) == 1


class TestUpdate:
    async def test_the_mask_says_what_changes(self, devices: Devices) -> None:
        made = await create(devices, display_name="a", type="boiler", labels={"site": "north"})
        changed = await update(devices, Device(device_id="d1", display_name="b", type="x"), "display_name")
        assert (changed.display_name, changed.type) == ("b", "boiler")
        assert changed.etag != made.etag
        assert changed.update_time.ToMicroseconds() >= made.update_time.ToMicroseconds()
        assert await get(devices) == changed
        cleared = await update(devices, Device(device_id="d1"), "labels")
        assert not cleared.labels

    async def test_an_output_only_field_cannot_be_named(self, devices: Devices) -> None:
        await create(devices)
        with refused("INVALID_ARGUMENT"):
            await update(devices, Device(device_id="d1"), "status")

    async def test_nothing_is_written_when_nothing_changes(self, devices: Devices, store: CountingStore) -> None:
        made = await create(devices, type="boiler")
        written = store.commits
        assert await update(devices, Device(device_id="d1", type="boiler"), "type") == made
        assert store.commits == written

    async def test_an_old_etag_is_refused(self, devices: Devices) -> None:
        made = await create(devices)
        current = await update(devices, Device(device_id="d1", type="a", etag=made.etag), "type")
        with refused("ETAG_MISMATCH"):
            await update(devices, Device(device_id="d1", type="b", etag=made.etag), "type")
        assert (await update(devices, Device(device_id="d1", type="b", etag=current.etag), "type")).type == "b"

    async def test_of_many_with_the_same_etag_exactly_one_wins(self, devices: Devices) -> None:
        made = await create(devices)
        answers = await asyncio.gather(
            *(update(devices, Device(device_id="d1", type=f"t{n}", etag=made.etag), "type") for n in range(20)),
            return_exceptions=True,
        )
        won = [answer for answer in answers if isinstance(answer, Device)]
        lost = [answer for answer in answers if isinstance(answer, ApiError)]
        assert len(won) == 1
        assert {failure.reason for failure in lost} == {"ETAG_MISMATCH"}
        assert await get(devices) == won[0]

    async def test_without_etag_no_change_is_lost(self, devices: Devices) -> None:
        await create(devices)
        await asyncio.gather(
            *(update(devices, Device(device_id="d1", labels={f"k{n}": "v"}), f"labels.k{n}") for n in range(8))
        )
        assert set((await get(devices)).labels) == {f"k{n}" for n in range(8)}

    async def test_a_mask_does_not_get_more_entries_in_than_there_may_be(self, devices: Devices) -> None:
        await create(devices, labels={f"k{n}": "v" for n in range(64)})
        with pytest.raises(ApiError) as refusal:
            await update(devices, Device(device_id="d1", labels={"more": "v"}), "labels.more")
        assert refusal.value.violations[0].field == "device.labels"

    async def test_a_device_that_is_not_there(self, devices: Devices) -> None:
        with refused("DEVICE_NOT_FOUND"):
            await update(devices, Device(device_id="none", type="x"), "type")


class TestDelete:
    async def test_it_is_gone_at_once(self, devices: Devices) -> None:
        await create(devices)
        await get(devices)
        await delete(devices)
        with refused("DEVICE_NOT_FOUND"):
            await get(devices)
        with refused("DEVICE_NOT_FOUND"):
            await delete(devices)
        await delete(devices, allow_missing=True)

    async def test_only_at_the_etag_given(self, devices: Devices) -> None:
        made = await create(devices)
        await update(devices, Device(device_id="d1", type="a"), "type")
        with refused("ETAG_MISMATCH"):
            await delete(devices, etag=made.etag)
        await delete(devices, etag=(await get(devices)).etag)

    async def test_an_etag_does_not_outlive_its_device(self, devices: Devices) -> None:
        made = await create(devices)
        await delete(devices)
        await create(devices)
        with refused("ETAG_MISMATCH"):
            await update(devices, Device(device_id="d1", type="a", etag=made.etag), "type")


async def steps_back(store: CountingStore, valkey: Valkey) -> int:
    """Two replicas, one writing, both reading all the while: how many reads were older than a change that had been
    acknowledged before they began."""
    clock = SystemClock()
    older = 0
    async with replica(store, valkey, clock) as one, replica(store, valkey, clock) as two:
        with one.tenant("acme"):
            await create(one)
            acknowledged = 0
            done = False

            async def read(devices: Devices) -> int:
                nonlocal older
                reads = 0
                while not done:
                    floor = acknowledged
                    older += int((await get(devices)).type or 0) < floor
                    reads += 1
                return reads

            async def write() -> None:
                nonlocal acknowledged, done
                for number in range(1, 80):
                    await update(two, Device(device_id="d1", type=str(number)), "type")
                    acknowledged = number
                done = True

            *reads, _ = await asyncio.gather(read(one), read(two), read(one), write())
    assert sum(reads) > 80
    return older


async def test_no_read_is_older_than_the_last_acknowledged_change(store: CountingStore, valkey: Valkey) -> None:
    assert await steps_back(store, valkey) == 0


async def test_it_would_be_without_the_invalidations(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded bug: the check above must be able to fail."""

    async def forgotten(*_: str) -> bool:
        return True

    monkeypatch.setattr(LeaseReadThrough, "invalidate", forgotten)
    assert await steps_back(store, valkey) > 0


async def test_without_the_cache_everything_works(store: CountingStore, own_valkey: Valkey) -> None:
    async with replica(store, own_valkey, SystemClock()) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await own_valkey.kill()
            made = await create(devices, "d2")
            assert await get(devices, "d2") == made
            await update(devices, Device(device_id="d1", type="a"), "type")
            assert (await get(devices)).type == "a"
            await delete(devices)
            with refused("DEVICE_NOT_FOUND"):
                await get(devices)


async def test_what_the_store_refuses_is_said(devices: Devices, store: CountingStore) -> None:
    await create(devices)
    store.failure = StoreUnavailable()
    with refused("STORE_UNAVAILABLE"):
        await update(devices, Device(device_id="d1", type="a"), "type")
    with refused("STORE_UNAVAILABLE"):
        await create(devices, "d2")
