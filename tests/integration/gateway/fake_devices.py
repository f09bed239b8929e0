# ruff: noqa: N802 - gRPC names the methods
"""A device service for the gateway's tests: a real gRPC server on the generated base, devices in a dict."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from bas.devices.v2 import devices_pb2, devices_service_pb2, devices_service_pb2_grpc
from chassis import errors
from chassis.interceptors.status import STATUS_CODES, trailers_of

SERVICE = "bas.devices.v2.DeviceService"


class FakeDevices(devices_service_pb2_grpc.DeviceServiceServicer):
    """`requests` and `metadata` hold what came in; `fail` is raised by the next calls; a get of `slow` waits, and a
    batch whose first device that is."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.devices: dict[str, devices_pb2.Device] = {}
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.seconds_left: list[float] = []
        self.fail: errors.ApiError | None = None
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()

    async def _enter(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.seconds_left.append(context.time_remaining())
        if self.fail is not None:
            await self._abort(context, self.fail)

    async def _wait(self) -> None:
        self.waiting.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _abort(self, context: Any, error: errors.ApiError) -> NoReturn:
        context.set_trailing_metadata(trailers_of(error, ""))
        await context.abort(STATUS_CODES[error.code], error.message)
        raise AssertionError("abort returned")

    async def GetDevice(self, request: Any, context: Any) -> devices_pb2.Device:
        await self._enter(request, context)
        if request.device_id == "slow":
            await self._wait()
        device = self.devices.get(request.device_id)
        if device is None:
            await self._abort(context, errors.not_found("device", request.device_id))
        return device

    async def CreateDevice(self, request: Any, context: Any) -> devices_pb2.Device:
        await self._enter(request, context)
        device = devices_pb2.Device()
        device.CopyFrom(request.device)
        device.device_id = device.device_id or "made"
        device.etag = "1"
        self.devices[device.device_id] = device
        return device

    async def UpdateDevice(self, request: Any, context: Any) -> devices_pb2.Device:
        await self._enter(request, context)
        device = self.devices[request.device.device_id]
        if request.device.etag and request.device.etag != device.etag:
            await self._abort(context, errors.etag_mismatch("device", device.device_id))
        request.update_mask.MergeMessage(request.device, device, replace_repeated_field=True)
        device.etag = str(int(device.etag) + 1)
        return device

    async def DeleteDevice(self, request: Any, context: Any) -> Empty:
        await self._enter(request, context)
        device = self.devices[request.device_id]
        if request.etag and request.etag != device.etag:
            await self._abort(context, errors.etag_mismatch("device", device.device_id))
        del self.devices[request.device_id]
        return Empty()

    async def ListDevices(self, request: Any, context: Any) -> devices_service_pb2.ListDevicesResponse:
        await self._enter(request, context)
        return devices_service_pb2.ListDevicesResponse(devices=list(self.devices.values()))

    async def CountDevices(self, request: Any, context: Any) -> devices_service_pb2.CountDevicesResponse:
        await self._enter(request, context)
        return devices_service_pb2.CountDevicesResponse(total=len(self.devices))

    async def Heartbeat(self, request: Any, context: Any) -> devices_service_pb2.HeartbeatResponse:
        await self._enter(request, context)
        return devices_service_pb2.HeartbeatResponse(status=devices_pb2.DEVICE_STATUS_ONLINE)

    async def SetDeviceStatus(self, request: Any, context: Any) -> devices_pb2.Device:
        await self._enter(request, context)
        return devices_pb2.Device(device_id=request.device_id, status=request.status)

    async def ReportTelemetry(self, request: Any, context: Any) -> devices_pb2.Telemetry:
        await self._enter(request, context)
        return devices_pb2.Telemetry(device_id=request.device_id, readings=request.readings)

    async def GetTelemetry(self, request: Any, context: Any) -> devices_pb2.Telemetry:
        await self._enter(request, context)
        return devices_pb2.Telemetry(device_id=request.device_id)

    async def BatchCreateDevices(self, request: Any, context: Any) -> devices_service_pb2.BatchCreateDevicesResponse:
        await self._enter(request, context)
        if request.devices and request.devices[0].device_id == "slow":
            await self._wait()
        return devices_service_pb2.BatchCreateDevicesResponse()


class DeviceServer:
    """The server of a FakeDevices; `port` stays the same when it is started again."""

    def __init__(self, devices: FakeDevices) -> None:
        self._devices = devices
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self.health = health_aio.HealthServicer()

    async def start(self) -> None:
        self._server = grpc.aio.server()
        devices_service_pb2_grpc.add_DeviceServiceServicer_to_server(self._devices, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        await self.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@asynccontextmanager
async def serve_devices(devices: FakeDevices) -> AsyncIterator[DeviceServer]:
    server = DeviceServer(devices)
    await server.start()
    try:
        yield server
    finally:
        devices.release.set()
        await server.stop()
