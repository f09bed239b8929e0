"""The RPCs of the devices service, as short as a test wants them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bas.devices.v2.devices_pb2 import Device, DeviceStatus
from bas.devices.v2.devices_service_pb2 import (
    BatchCreateDevicesRequest,
    BatchCreateDevicesResponse,
    CountDevicesRequest,
    CountDevicesResponse,
    CreateDeviceRequest,
    DeleteDeviceRequest,
    GetDeviceRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    ListDevicesRequest,
    ListDevicesResponse,
    SetDeviceStatusRequest,
    UpdateDeviceRequest,
)
from chassis.errors import ApiError
from tests.integration.devices.conftest import Devices


async def create(devices: Devices, device_id: str = "d1", request_id: str = "", **fields: Any) -> Device:
    device = Device(device_id=device_id, **fields)
    return await devices.api.CreateDevice(CreateDeviceRequest(device=device, request_id=request_id))


async def batch(devices: Devices, given: Sequence[Device], request_id: str = "") -> BatchCreateDevicesResponse:
    return await devices.api.BatchCreateDevices(BatchCreateDevicesRequest(devices=given, request_id=request_id))


async def get(devices: Devices, device_id: str = "d1") -> Device:
    return Device.FromString(await devices.api.GetDevice(GetDeviceRequest(device_id=device_id)))


async def update(devices: Devices, device: Device, *paths: str) -> Device:
    request = UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=paths))
    return await devices.api.UpdateDevice(request)


async def delete(devices: Devices, device_id: str = "d1", etag: str = "", *, allow_missing: bool = False) -> None:
    request = DeleteDeviceRequest(device_id=device_id, etag=etag, allow_missing=allow_missing)
    await devices.api.DeleteDevice(request)


async def listed(devices: Devices, **fields: Any) -> ListDevicesResponse:
    return ListDevicesResponse.FromString(await devices.api.ListDevices(ListDevicesRequest(**fields)))


async def ids(devices: Devices, **fields: Any) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    token = ""
    while True:
        page = await listed(devices, page_token=token, **fields)
        found += [device.device_id for device in page.devices]
        token = page.next_page_token
        if not token:
            return found


async def count(devices: Devices, written: str = "") -> Mapping[str, int]:
    data = await devices.api.CountDevices(CountDevicesRequest(filter=written))
    response = CountDevicesResponse.FromString(data)
    assert response.HasField("as_of")
    assert not response.approximate
    assert response.total == sum(response.counts.values())
    return {name.removeprefix("DEVICE_STATUS_"): figure for name, figure in response.counts.items() if figure}


async def beat(devices: Devices, device_id: str = "d1", boot: str = "", sequence: int = 0) -> HeartbeatResponse:
    return await devices.api.Heartbeat(HeartbeatRequest(device_id=device_id, boot_id=boot, sequence=sequence))


async def set_status(
    devices: Devices, status: DeviceStatus.ValueType, device_id: str = "d1", reason: str = ""
) -> Device:
    request = SetDeviceStatusRequest(device_id=device_id, status=status, reason=reason)
    return await devices.api.SetDeviceStatus(request)


def refused(reason: str) -> Any:
    """Expect an ApiError of that reason."""
    return pytest.raises(ApiError, check=lambda failure: failure.reason == reason)
