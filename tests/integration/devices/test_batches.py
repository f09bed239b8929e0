"""Registering many devices: each by itself, committed together."""

import asyncio

from google.rpc import code_pb2

from bas.devices.v2.devices_pb2 import Device
from chassis.store.port import StoreUnavailable
from tests.integration.devices.calls import batch, count, create, get, refused
from tests.integration.devices.conftest import CountingStore, Devices


async def test_a_full_batch_in_few_commits(devices: Devices, store: CountingStore) -> None:
    given = [Device(device_id=f"d{n}", type="boiler") for n in range(500)]
    answer = await batch(devices, given)
    assert [result.device.device_id for result in answer.results] == [device.device_id for device in given]
    assert store.commits == 5
    assert await get(devices, "d499") == answer.results[499].device
    assert await count(devices) == {"NEVER_SEEN": 500}


async def test_each_fails_by_itself(devices: Devices) -> None:
    await create(devices, "taken", type="first")
    answer = await batch(
        devices,
        [
            Device(device_id="good"),
            Device(device_id="taken"),
            Device(device_id="good", type="again"),
            Device(device_id="bad id"),
            Device(display_name="made"),
            Device(display_name="also made"),
        ],
    )
    outcomes = [result.WhichOneof("outcome") for result in answer.results]
    assert outcomes == ["device", "error", "error", "error", "device", "device"]
    errors = [result.error for result in answer.results]
    assert errors[1].reason == errors[2].reason == "DEVICE_ALREADY_EXISTS"
    assert errors[1].code == code_pb2.ALREADY_EXISTS
    assert errors[3].code == code_pb2.INVALID_ARGUMENT
    assert errors[3].violations[0].field == "device_id"
    assert answer.results[4].device.device_id != answer.results[5].device.device_id
    assert (await get(devices, "taken")).type == "first"
    assert (await get(devices, "good")).type == ""


async def test_a_repetition_returns_each_first_answer(devices: Devices) -> None:
    given = [Device(device_id="d1"), Device(type="made"), Device(device_id="d3")]
    first = await batch(devices, given, "r1")
    assert await batch(devices, given, "r1") == first
    assert await count(devices) == {"NEVER_SEEN": 3}


async def test_twin_batches_make_each_device_once(devices: Devices) -> None:
    given = [Device(type=f"t{n}") for n in range(150)]
    one, two, three = await asyncio.gather(*(batch(devices, given, "r1") for _ in range(3)))
    assert one == two == three
    assert await count(devices) == {"NEVER_SEEN": 150}


async def test_racing_batches_share_out_the_devices(devices: Devices) -> None:
    given = [Device(device_id=f"d{n}") for n in range(120)]
    answers = await asyncio.gather(*(batch(devices, given) for _ in range(3)))
    for position in range(120):
        outcomes = [answer.results[position].HasField("device") for answer in answers]
        assert sorted(outcomes) == [False, False, True]


async def test_large_devices_stay_within_what_a_commit_holds(devices: Devices) -> None:
    labels = {f"k{n}": "v" * 1000 for n in range(64)}
    answer = await batch(devices, [Device(labels=labels, metadata=labels) for _ in range(30)])
    assert all(result.HasField("device") for result in answer.results)


async def test_it_fails_as_a_whole_when_the_store_takes_nothing(devices: Devices, store: CountingStore) -> None:
    store.failure = StoreUnavailable()
    with refused("STORE_UNAVAILABLE"):
        await batch(devices, [Device(device_id="d1"), Device(device_id="d2")])
