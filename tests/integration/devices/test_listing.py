"""Pages, filters, orders and counts."""

import pytest

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Device
from bas.devices.v2.devices_service_pb2 import CountDevicesRequest, ListDevicesRequest
from chassis.errors import ApiError
from tests.integration.devices.calls import (
    batch,
    beat,
    count,
    create,
    delete,
    get,
    ids,
    listed,
    refused,
    set_status,
    update,
)
from tests.integration.devices.conftest import Devices

SITES = ("north", "south")


@pytest.fixture
async def fleet(devices: Devices) -> Devices:
    """d00 … d11, created in that order; every second a boiler, alternating sites, d00 to d03 online, d04 disabled."""
    for n in range(12):
        await create(
            devices,
            f"d{n:02d}",
            display_name=f"name {11 - n:02d}",
            type="boiler" if n % 2 == 0 else "pump",
            labels={"site": SITES[n % 3 == 0], "odd.key": "a=b"} if n < 9 else {},
        )
    for n in range(4):
        await beat(devices, f"d{n:02d}")
    await set_status(devices, DEVICE_STATUS_DISABLED, "d04")
    return devices


def names(*numbers: int) -> list[str]:
    return [f"d{n:02d}" for n in numbers]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", range(12)),
        ("status = DEVICE_STATUS_ONLINE", range(4)),
        ("status = ONLINE", range(4)),
        ("status != NEVER_SEEN", range(5)),
        ("type = boiler", range(0, 12, 2)),
        ("type != boiler", range(1, 12, 2)),
        ('type = "boiler" AND status = ONLINE', (0, 2)),
        ("labels.site = south", (0, 3, 6)),
        ("labels:site", range(9)),
        ('labels."odd.key" = "a=b" AND labels.site = south AND type = pump', (3,)),
        ("status = ONLINE AND status = OFFLINE", ()),
        ("labels.site = west", ()),
    ],
)
async def test_filters(fleet: Devices, written: str, expected: range) -> None:
    assert await ids(fleet, filter=written, order_by="create_time") == names(*expected)
    assert await ids(fleet, filter=written, page_size=2) == names(*expected)[::-1]
    assert sum((await count(fleet, written)).values()) == len(expected)


async def test_times_are_compared(fleet: Devices) -> None:
    at = (await get(fleet, "d05")).create_time.ToJsonString()
    assert await ids(fleet, filter=f'create_time < "{at}"', order_by="create_time") == names(*range(5))
    assert await ids(fleet, filter=f'create_time >= "{at}" AND type = pump') == names(11, 9, 7, 5)
    assert await ids(fleet, filter=f'create_time = "{at}"') == names(5)
    assert await count(fleet, f'create_time <= "{at}"') == {"ONLINE": 4, "DISABLED": 1, "NEVER_SEEN": 1}
    assert await count(fleet, f'create_time = "{at}" AND labels:site') == {"NEVER_SEEN": 1}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", range(11, -1, -1)),
        ("create_time", range(12)),
        ("create_time desc", range(11, -1, -1)),
        ("device_id", range(12)),
        ("display_name", range(11, -1, -1)),
        ("display_name desc", range(12)),
        ("last_seen_time", (*range(4, 12), *range(4))),
        ("last_seen_time desc", (*range(3, -1, -1), *range(11, 3, -1))),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 5])
async def test_orders(fleet: Devices, order: str, expected: range, size: int) -> None:
    assert await ids(fleet, order_by=order, page_size=size) == names(*expected)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("device_id", (0, 1, 2, 3)),
        ("display_name", (3, 2, 1, 0)),
        ("display_name desc", (0, 1, 2, 3)),
        ("last_seen_time desc", (3, 2, 1, 0)),
        ("create_time", (0, 1, 2, 3)),
    ],
)
async def test_every_order_goes_with_a_filter_by_status(fleet: Devices, order: str, expected: tuple[int, ...]) -> None:
    for size in (1, 50):
        assert await ids(fleet, filter="status = ONLINE", order_by=order, page_size=size) == names(*expected)
    listed_twice = await ids(fleet, filter="status != ONLINE", order_by=order, page_size=3)
    assert sorted(listed_twice) == names(*range(4, 12))


@pytest.mark.parametrize("written", ["type = boiler", "labels:site", "status = ONLINE AND labels.site = north"])
@pytest.mark.parametrize("order", ["device_id", "display_name desc", "last_seen_time"])
async def test_other_filters_go_with_the_order_by_creation(devices: Devices, written: str, order: str) -> None:
    with pytest.raises(ApiError) as refusal:
        await listed(devices, filter=written, order_by=order)
    (told,) = refusal.value.violations
    assert told.field == "order_by"
    assert told.description.endswith("accepted then: create_time; create_time desc")
    await listed(devices, filter=written, order_by="create_time")


async def test_an_unknown_order_is_told_which_there_are(devices: Devices) -> None:
    with pytest.raises(ApiError) as refusal:
        await listed(devices, order_by="update_time")
    assert "accepted: create_time; create_time desc; last_seen_time; last_seen_time desc" in str(refusal.value)


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"filter": "colour = red"}, "filter"),
        ({"filter": "status = ASLEEP"}, "filter"),
        ({"filter": "type > a"}, "filter"),
        ({"filter": "create_time > yesterday"}, "filter"),
        ({"filter": 'create_time != "2026-01-01T00:00:00Z"'}, "filter"),
        ({"filter": 'update_time > "2026-01-01T00:00:00Z"'}, "filter"),
        ({"order_by": "type"}, "order_by"),
        ({"filter": 'create_time > "2026-01-01T00:00:00Z"', "order_by": "display_name"}, "order_by"),
        ({"filter": 'create_time > "2026-01-01T00:00:00Z"', "order_by": "device_id"}, "order_by"),
        ({"order_by": "device_id desc"}, "order_by"),
        ({"page_token": "bm9wZQ"}, "page_token"),
    ],
)
async def test_what_is_refused(devices: Devices, request_fields: dict[str, str], field: str) -> None:
    with pytest.raises(ApiError) as refusal:
        await devices.api.ListDevices(ListDevicesRequest(**request_fields))  # type: ignore[arg-type]
    assert refusal.value.violations[0].field == field


async def test_pages_are_bounded(devices: Devices) -> None:
    for start in (0, 500, 1000):
        await batch(devices, [Device(device_id=f"d{n:04d}") for n in range(start, min(start + 500, 1001))])
    assert len((await listed(devices)).devices) == 50
    page = await listed(devices, page_size=5000, order_by="device_id")
    assert len(page.devices) == 1000
    rest = await listed(devices, page_size=5000, order_by="device_id", page_token=page.next_page_token)
    assert [device.device_id for device in rest.devices] == ["d1000"]
    assert not rest.next_page_token


async def test_a_page_of_large_devices_ends_early(devices: Devices) -> None:
    big = {f"k{n}": "v" * 1000 for n in range(64)}
    await batch(devices, [Device(device_id=f"d{n:02d}", metadata=big) for n in range(40)])
    page = await listed(devices, page_size=1000, order_by="device_id")
    assert 1 < len(page.devices) < 40
    assert page.ByteSize() < 3 * 1024 * 1024
    assert await ids(devices, page_size=1000, order_by="device_id") == [f"d{n:02d}" for n in range(40)]


async def test_a_token_belongs_to_its_tenant_and_list(fleet: Devices) -> None:
    token = (await listed(fleet, page_size=2)).next_page_token
    with fleet.tenant("other"), pytest.raises(ApiError) as foreign:
        await listed(fleet, page_size=2, page_token=token)
    for fields in ({"filter": "type = pump"}, {"order_by": "device_id"}):
        with pytest.raises(ApiError) as moved:
            await listed(fleet, page_size=2, page_token=token, **fields)
        assert str(moved.value) == str(foreign.value)
    again = await listed(fleet, page_size=3, page_token=token)
    assert [device.device_id for device in again.devices] == names(9, 8, 7)


async def test_a_cursor_goes_on_behind_a_device_that_is_gone(fleet: Devices) -> None:
    page = await listed(fleet, page_size=2, order_by="device_id")
    await delete(fleet, "d01")
    following = await listed(fleet, page_size=3, order_by="device_id", page_token=page.next_page_token)
    assert [device.device_id for device in following.devices] == names(2, 3, 4)


async def test_every_change_shows_in_the_first_page_and_the_counts(devices: Devices) -> None:
    assert await ids(devices) == []
    assert await count(devices) == {}
    await create(devices)
    assert await ids(devices) == ["d1"]
    assert await count(devices) == {"NEVER_SEEN": 1}
    await beat(devices)
    assert await count(devices) == {"ONLINE": 1}
    await update(devices, Device(device_id="d1", type="boiler"), "type")
    assert (await listed(devices)).devices[0].type == "boiler"
    await set_status(devices, DEVICE_STATUS_DISABLED)
    assert await count(devices) == {"DISABLED": 1}
    await batch(devices, [Device(device_id="d2")])
    assert await ids(devices, order_by="device_id") == ["d1", "d2"]
    await delete(devices)
    assert await ids(devices) == ["d2"]
    assert await count(devices) == {"NEVER_SEEN": 1}


async def test_a_repeated_count_and_first_page_are_answered_from_the_cache(fleet: Devices) -> None:
    request = CountDevicesRequest(filter="type = pump")
    assert await fleet.api.CountDevices(request) == await fleet.api.CountDevices(request)  # as_of, too
    hits = fleet.cached("dev:list")
    await listed(fleet, page_size=7)
    await listed(fleet, page_size=7)
    assert fleet.cached("dev:list") == hits + 1


async def test_tenants_see_their_own(fleet: Devices) -> None:
    with fleet.tenant("other"):
        assert await ids(fleet) == []
        assert await count(fleet) == {}
        with refused("DEVICE_NOT_FOUND"):
            await get(fleet, "d00")
