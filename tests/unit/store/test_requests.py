"""Idempotent creates over the real embedded store: one resource and one answer, however often and from where it is asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bas.devices.v2.devices_pb2 import Device
from bas.devices.v2.devices_service_pb2 import CreateDeviceRequest
from chassis.clock import FakeClock
from chassis.config import Store as StoreBudget
from chassis.errors import ApiError, Code
from chassis.store.port import Create, Delete, DocumentExists, DocumentStore, Key, Schema
from chassis.store.requests import KEPT, TTL_FIELDS, RequestLog, item_id
from chassis.store.sqlite import SqliteStore

METHOD = "/bas.devices.v2.DeviceService/CreateDevice"
REQUEST = CreateDeviceRequest(device=Device(display_name="Boiler 7", labels={"b": "2", "a": "1"}), request_id="r1")
OTHER = CreateDeviceRequest(device=Device(display_name="Boiler 8"), request_id="r1")
ANSWER = Device(device_id="d1", display_name="Boiler 7")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[DocumentStore]:
    opened = await SqliteStore.open(
        tmp_path / "store.db", Schema(ttl_fields=dict(TTL_FIELDS)), clock=clock, budget=StoreBudget()
    )
    yield opened
    await opened.close()


@pytest.fixture
def log(store: DocumentStore, clock: FakeClock) -> RequestLog:
    return RequestLog(store, clock)


async def test_a_new_id_has_no_answer(log: RequestLog) -> None:
    assert await log.replay("t", METHOD, "r1", REQUEST) is None
    assert await log.replay("t", METHOD, "", REQUEST) is None


async def test_a_repetition_gets_the_first_answer_and_the_version_of_its_commit(
    log: RequestLog, store: DocumentStore
) -> None:
    resource = Create(Key("t", "devices", "d1"), {"name": "Boiler 7"})
    done = await store.commit([resource, log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    kept = await log.find("t", METHOD, "r1", REQUEST)
    assert kept is not None
    assert Device.FromString(kept.response) == ANSWER
    assert kept.version == done.versions[0]
    assert await log.replay("t", METHOD, "r1", REQUEST) == kept.response


async def test_the_id_belongs_to_one_tenant_and_one_method(log: RequestLog, store: DocumentStore) -> None:
    await store.commit([log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    assert await log.replay("other", METHOD, "r1", REQUEST) is None
    assert await log.replay("t", "/bas.users.v2.UserService/CreateUser", "r1", REQUEST) is None
    assert await log.replay("t", METHOD, "r2", REQUEST) is None


async def test_another_request_under_the_same_id_is_refused(log: RequestLog, store: DocumentStore) -> None:
    await store.commit([log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    with pytest.raises(ApiError) as caught:
        await log.replay("t", METHOD, "r1", OTHER)
    assert caught.value.code is Code.ALREADY_EXISTS
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_the_order_of_a_maps_entries_makes_no_other_request(log: RequestLog, store: DocumentStore) -> None:
    labels = {f"k{number}": str(number) for number in range(30)}
    backwards = dict(reversed(labels.items()))
    await store.commit([log.write_for("t", METHOD, "r1", CreateDeviceRequest(device=Device(labels=labels)), ANSWER)])
    assert await log.replay("t", METHOD, "r1", CreateDeviceRequest(device=Device(labels=backwards))) is not None


async def test_an_answer_is_kept_for_its_time_and_not_longer(
    log: RequestLog, store: DocumentStore, clock: FakeClock
) -> None:
    await store.commit([log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    await clock.advance(KEPT.total_seconds() - 1)
    assert await log.replay("t", METHOD, "r1", REQUEST) is not None
    await clock.advance(1)
    assert await log.replay("t", METHOD, "r1", OTHER) is None
    # What has expired does not stand in the way, even if the engine has not come to deleting it.
    await store.commit([log.write_for("t", METHOD, "r1", OTHER, ANSWER)])


async def test_of_racing_twins_one_creates_and_all_get_its_answer(log: RequestLog, store: DocumentStore) -> None:
    async def create(made_id: str) -> bytes | None:
        if answer := await log.replay("t", METHOD, "r1", REQUEST):
            return answer
        response = Device(device_id=made_id)
        resource = Create(Key("t", "devices", made_id), {})
        try:
            await store.commit([resource, log.write_for("t", METHOD, "r1", REQUEST, response)])
        except DocumentExists:
            return await log.replay("t", METHOD, "r1", REQUEST)
        return response.SerializeToString()

    answers = await asyncio.gather(*(create(f"d{number}") for number in range(20)))
    assert len(set(answers)) == 1
    made = await store.get_many([Key("t", "devices", f"d{number}") for number in range(20)])
    assert len([one for one in made if one]) == 1


async def test_without_the_log_in_the_commit_the_race_would_make_two(log: RequestLog, store: DocumentStore) -> None:
    """The seeded bug that the test above is there for: the answer written in a commit of its own."""
    assert await log.replay("t", METHOD, "r1", REQUEST) is None
    assert await log.replay("t", METHOD, "r1", REQUEST) is None
    await store.commit([Create(Key("t", "devices", "d1"), {})])
    await store.commit([Create(Key("t", "devices", "d2"), {})])
    await store.commit([log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    with pytest.raises(DocumentExists):
        await store.commit([log.write_for("t", METHOD, "r1", REQUEST, ANSWER)])
    assert all(await store.get_many([Key("t", "devices", "d1"), Key("t", "devices", "d2")]))


async def test_two_that_forget_the_same_expired_answer_do_not_fail(store: DocumentStore, clock: FakeClock) -> None:
    log = RequestLog(store, clock)
    write = log.write_for("t", METHOD, "r1", REQUEST, ANSWER)
    await store.commit([write])
    kept = await store.get(write.key)
    assert kept is not None
    await store.commit([Delete(write.key)])
    await log._forget(kept)


def test_nothing_is_kept_without_an_id(store: DocumentStore, clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="request id"):
        RequestLog(store, clock).write_for("t", METHOD, "", REQUEST, ANSWER)


async def test_items_of_a_batch_have_ids_of_their_own(log: RequestLog, store: DocumentStore) -> None:
    await store.commit(
        [log.write_for("t", METHOD, item_id("r1", index), REQUEST, Device(device_id=f"d{index}")) for index in range(3)]
    )
    answer = await log.replay("t", METHOD, item_id("r1", 2), REQUEST)
    assert Device.FromString(answer or b"").device_id == "d2"
    assert item_id("", 0) == ""
