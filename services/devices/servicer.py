# ruff: noqa: N802 - methods are named as their RPCs are
"""DeviceService: one method an RPC. Scopes, deadlines and field rules are checked before a method runs."""

from google.protobuf.empty_pb2 import Empty

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Device, Telemetry
from bas.devices.v2.devices_service_pb2 import (
    BatchCreateDevicesRequest,
    BatchCreateDevicesResponse,
    CountDevicesRequest,
    CreateDeviceRequest,
    DeleteDeviceRequest,
    GetDeviceRequest,
    GetTelemetryRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    ListDevicesRequest,
    ReportTelemetryRequest,
    SetDeviceStatusRequest,
    UpdateDeviceRequest,
)
from chassis.context import tenant
from chassis.errors import ApiError, Code
from services.devices import device as rules
from services.devices.listing import DeviceLists
from services.devices.presence import Beat
from services.devices.registry import Registry
from services.devices.store import DeviceStore
from services.devices.telemetry import TelemetrySnapshots
from services.devices.tracker import Tracker


class DeviceServicer:
    def __init__(
        self,
        store: DeviceStore,
        registry: Registry,
        lists: DeviceLists,
        tracker: Tracker,
        telemetry: TelemetrySnapshots,
    ) -> None:
        self._store = store
        self._registry = registry
        self._lists = lists
        self._tracker = tracker
        self._telemetry = telemetry

    async def CreateDevice(self, request: CreateDeviceRequest) -> Device:
        return await self._registry.create(tenant(), request)

    async def BatchCreateDevices(self, request: BatchCreateDevicesRequest) -> BatchCreateDevicesResponse:
        return await self._registry.create_batch(tenant(), request)

    async def GetDevice(self, request: GetDeviceRequest) -> bytes:
        return await self._store.get(tenant(), request.device_id)

    async def ListDevices(self, request: ListDevicesRequest) -> bytes:
        return await self._lists.page(tenant(), request)

    async def CountDevices(self, request: CountDevicesRequest) -> bytes:
        return await self._lists.count(tenant(), request.filter)

    async def UpdateDevice(self, request: UpdateDeviceRequest) -> Device:
        return await self._registry.update(tenant(), request.device, request.update_mask)

    async def DeleteDevice(self, request: DeleteDeviceRequest) -> Empty:
        try:
            await self._store.delete(tenant(), request.device_id, etag=request.etag)
        except ApiError as failure:
            if failure.code is not Code.NOT_FOUND or not request.allow_missing:
                raise
        await self._tracker.forget(tenant(), request.device_id)
        return Empty()

    async def Heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        return await self._tracker.heartbeat(tenant(), request.device_id, Beat(request.boot_id, request.sequence))

    async def SetDeviceStatus(self, request: SetDeviceStatusRequest) -> Device:
        return await self._tracker.set_status(tenant(), request.device_id, request.status, request.reason)

    async def ReportTelemetry(self, request: ReportTelemetryRequest) -> Telemetry:
        device = Device.FromString(await self._store.get(tenant(), request.device_id))
        if device.status == DEVICE_STATUS_DISABLED:
            raise rules.disabled(request.device_id)
        return await self._telemetry.report(tenant(), request.device_id, request.readings)

    async def GetTelemetry(self, request: GetTelemetryRequest) -> Telemetry:
        await self._store.get(tenant(), request.device_id)
        return await self._telemetry.read(tenant(), request.device_id)
