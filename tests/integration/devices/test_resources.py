"""Creating, reading, changing and removing devices."""

import pytest

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_NEVER_SEEN, Device
from bas.devices.v2.devices_service_pb2 import CreateDeviceRequest, GetDeviceRequest
from chassis.errors import ApiError
from tests.integration.devices.conftest import Devices


async def create(devices: Devices, device_id: str = "d1", **fields: object) -> Device:
    return await devices.api.CreateDevice(CreateDeviceRequest(device=Device(device_id=device_id, **fields)))  # type: ignore[arg-type]


async def get(devices: Devices, device_id: str = "d1") -> Device:
    return Device.FromString(await devices.api.GetDevice(GetDeviceRequest(device_id=device_id)))


async def test_a_created_device_is_read_as_it_was_answered(devices: Devices) -> None:
    made = await create(devices, display_name="Boiler 7", labels={"site": "north"})
    assert made.status == DEVICE_STATUS_NEVER_SEEN
    assert made.etag
    assert made.create_time == made.update_time == made.status_time
    assert await get(devices) == made
    assert await get(devices) == made
    with pytest.raises(ApiError) as again:
        await create(devices)
    assert again.value.reason == "DEVICE_ALREADY_EXISTS"
