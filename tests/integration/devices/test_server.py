"""The service behind the real server chain, as a client of the network meets it."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, DEVICE_STATUS_ONLINE, Device, Reading
from bas.devices.v2.devices_service_pb2 import (
    BatchCreateDevicesRequest,
    CountDevicesRequest,
    CreateDeviceRequest,
    DeleteDeviceRequest,
    GetDeviceRequest,
    GetTelemetryRequest,
    HeartbeatRequest,
    ListDevicesRequest,
    ReportTelemetryRequest,
    SetDeviceStatusRequest,
    UpdateDeviceRequest,
)
from bas.devices.v2.devices_service_pb2_grpc import DeviceServiceStub
from chassis.api.validation import compile_validator
from chassis.auth import keys, tokens
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Grpc
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.interceptors.status import error_of
from chassis.module import Parts
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from services.devices.module import SPEC
from tests.integration.devices.conftest import CountingStore, replica, secret
from tests.support import patience
from tests.support.memory_cache import MemoryCache
from tests.support.valkey import Valkey


@dataclass(frozen=True, slots=True)
class Wire:
    """A stub, and the metadata of tenants."""

    stub: Any
    bearer: Any

    def __getattr__(self, name: str) -> Any:
        """The RPC, called as tenant `acme`."""
        method = getattr(self.stub, name)
        return lambda request, **more: method(
            request, **{"metadata": self.bearer("acme"), "timeout": patience.CALL, **more}
        )


@pytest.fixture
async def wire(store: CountingStore, valkey: Valkey, tmp_path: Path) -> AsyncIterator[Wire]:
    clock = SystemClock()
    held = keys.load_or_create(tmp_path / "keys.json", os.urandom)

    def bearer(tenant: str, *scopes: str) -> tuple[tuple[str, str], ...]:
        grant = Grant(tenant, "me", scopes or ("devices:write",))
        return (("authorization", "Bearer " + tokens.mint(held, Auth(), grant, clock.now())),)

    gate = Gate(Verifier(held, Auth(), clock), clock, patience.DEADLINE, os.urandom)
    chain = ServerChain(gate, Metrics(), compile_validator)
    async with replica(store, valkey, clock) as made:
        server = GrpcServer([made.module], chain, Grpc(), host="127.0.0.1", port=0, setting="BAS_DEVICES_PORT")
        await server.start()
        server.health.set_all(SERVING)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield Wire(DeviceServiceStub(channel), bearer)
        finally:
            await server.stop()


async def refused(call: Any) -> tuple[str, str]:
    """Code and reason that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    error = error_of(failure.value)
    return error.code.name, error.reason


async def test_a_devices_life(wire: Wire) -> None:
    made = await wire.CreateDevice(CreateDeviceRequest(device=Device(device_id="d1", type="boiler")))
    assert await wire.GetDevice(GetDeviceRequest(device_id="d1")) == made
    patch = Device(device_id="d1", display_name="Boiler 7", etag=made.etag)
    changed = await wire.UpdateDevice(UpdateDeviceRequest(device=patch))
    assert (changed.display_name, changed.type) == ("Boiler 7", "boiler")
    beat = await wire.Heartbeat(HeartbeatRequest(device_id="d1", boot_id="b1", sequence=1))
    assert beat.status == DEVICE_STATUS_ONLINE
    listed = await wire.ListDevices(ListDevicesRequest(filter="status = ONLINE AND type = boiler"))
    assert [device.device_id for device in listed.devices] == ["d1"]
    assert listed.devices[0].last_seen_time.ToSeconds() == pytest.approx(time.time(), abs=60)
    counted = await wire.CountDevices(CountDevicesRequest())
    assert dict(counted.counts) == {
        "DEVICE_STATUS_NEVER_SEEN": 0, "DEVICE_STATUS_ONLINE": 1, "DEVICE_STATUS_OFFLINE": 0, "DEVICE_STATUS_DISABLED": 0,
    }  # fmt: skip
    report = ReportTelemetryRequest(device_id="d1", readings={"temperature": Reading(double_value=20.5)})
    assert await wire.ReportTelemetry(report) == await wire.GetTelemetry(GetTelemetryRequest(device_id="d1"))
    disabled = await wire.SetDeviceStatus(SetDeviceStatusRequest(device_id="d1", status=DEVICE_STATUS_DISABLED))
    assert disabled.status == DEVICE_STATUS_DISABLED
    assert await refused(wire.Heartbeat(HeartbeatRequest(device_id="d1"))) == ("FAILED_PRECONDITION", "DEVICE_DISABLED")
    await wire.DeleteDevice(DeleteDeviceRequest(device_id="d1"))
    assert await refused(wire.GetDevice(GetDeviceRequest(device_id="d1"))) == ("NOT_FOUND", "DEVICE_NOT_FOUND")


async def test_one_bad_device_of_three_fails_alone(wire: Wire) -> None:
    bad = Device(device_id="bad id", display_name="n" * 257, labels={"site": "\x07"})
    given = [Device(device_id="d1"), bad, Device(device_id="d3")]
    answer = await wire.BatchCreateDevices(BatchCreateDevicesRequest(devices=given))
    assert [result.WhichOneof("outcome") for result in answer.results] == ["device", "error", "device"]
    told = answer.results[1].error
    assert (told.code, told.reason) == (code_pb2.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert [violation.field for violation in told.violations] == ["device_id", "display_name", 'labels["site"]']
    assert await wire.GetDevice(GetDeviceRequest(device_id="d3")) == answer.results[2].device


@pytest.mark.parametrize(
    ("name", "request_", "field"),
    [
        ("UpdateDevice", UpdateDeviceRequest(device=Device(type="x")), "device.device_id"),
        ("UpdateDevice", UpdateDeviceRequest(), "device"),
        (
            "ReportTelemetry",
            ReportTelemetryRequest(device_id="d1", readings={"t": Reading(unit="Cel")}),
            'readings["t"]',
        ),
        ("BatchCreateDevices", BatchCreateDevicesRequest(devices=[Device()] * 501), "devices"),
        ("BatchCreateDevices", BatchCreateDevicesRequest(), "devices"),
        ("ListDevices", ListDevicesRequest(filter="type = x", order_by="device_id"), "order_by"),
    ],
)
async def test_what_is_missing_or_too_much_is_named(wire: Wire, name: str, request_: Any, field: str) -> None:
    await wire.CreateDevice(CreateDeviceRequest(device=Device(device_id="d1")))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(wire, name)(request_)
    error = error_of(failure.value)
    assert (error.code.name, [violation.field for violation in error.violations]) == ("INVALID_ARGUMENT", [field])
    assert (await wire.CountDevices(CountDevicesRequest())).total == 1


async def test_a_full_batch(wire: Wire) -> None:
    given = [Device(type="boiler", labels={"n": str(n)}) for n in range(500)]
    answer = await wire.BatchCreateDevices(BatchCreateDevicesRequest(devices=given))
    assert sum(result.HasField("device") for result in answer.results) == 500
    given.append(Device())
    assert (await refused(wire.BatchCreateDevices(BatchCreateDevicesRequest(devices=given))))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "device",
    [
        Device(device_id="a/b"),
        Device(device_id="d" * 129),
        Device(display_name="n" * 257),
        Device(display_name="bell\x07"),
        Device(type="t" * 65),
        Device(labels={f"k{n}": "" for n in range(65)}),
        Device(labels={"k" * 65: ""}),
        Device(labels={"k": "v" * 1025}),
        Device(metadata={"k": "é" * 513}),
    ],
    ids=lambda device: next(iter(field.name for field, _ in device.ListFields())),
)
async def test_limits(wire: Wire, device: Device) -> None:
    assert await refused(wire.CreateDevice(CreateDeviceRequest(device=device))) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    )


async def test_the_scope_and_the_tenant_are_the_credentials(wire: Wire) -> None:
    request = CreateDeviceRequest(device=Device(device_id="d1"))
    assert await refused(wire.CreateDevice(request, metadata=())) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    reader = wire.bearer("acme", "devices:read")
    assert await refused(wire.CreateDevice(request, metadata=reader)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    await wire.CreateDevice(request)
    await wire.GetDevice(GetDeviceRequest(device_id="d1"), metadata=reader)
    theirs = GetDeviceRequest(device_id="d1")
    details = []
    for tenant, device_id in (("other", "d1"), ("acme", "d2")):
        theirs.device_id = device_id
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await wire.GetDevice(theirs, metadata=wire.bearer(tenant))
        trailers = dict(failure.value.trailing_metadata() or ())
        details.append(str(failure.value.details()).replace(device_id, "?"))
        assert "acme" not in str(trailers)
    assert details[0] == details[1]


def test_wiring_is_quick_and_touches_nothing(store: CountingStore) -> None:
    config = Config()
    parts = Parts(SystemClock(), store, MemoryCache(SystemClock()), Metrics(), os.urandom, secret)
    times = []
    for _ in range(20):
        parts = Parts(parts.clock, parts.store, parts.cache, Metrics(), os.urandom, secret)
        start = time.thread_time()
        SPEC.build(config, parts)
        times.append(time.thread_time() - start)
    assert min(times) < 0.002
