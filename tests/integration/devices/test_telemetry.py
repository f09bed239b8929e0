"""Latest readings: merged by name and time, forgotten after a while."""

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Reading, Telemetry
from bas.devices.v2.devices_service_pb2 import GetTelemetryRequest, ReportTelemetryRequest
from chassis.clock import SystemClock
from chassis.config import CacheTtl, Config, Seconds
from chassis.errors import ApiError
from services.devices.telemetry import MOST_READINGS
from tests.integration.devices.calls import create, delete, refused, set_status
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


async def report(devices: Devices, device_id: str = "d1", **readings: Any) -> Telemetry:
    return await devices.api.ReportTelemetry(ReportTelemetryRequest(device_id=device_id, readings=readings))


async def latest(devices: Devices, device_id: str = "d1") -> Telemetry:
    return await devices.api.GetTelemetry(GetTelemetryRequest(device_id=device_id))


def number(value: float, at: int | None = None, unit: str = "") -> Reading:
    return Reading(double_value=value, unit=unit, time=None if at is None else Timestamp(seconds=at))


async def test_a_device_that_reported_nothing_has_no_readings(devices: Devices) -> None:
    await create(devices)
    assert await latest(devices) == Telemetry(device_id="d1")


async def test_readings_are_merged_by_name(devices: Devices) -> None:
    await create(devices)
    await report(devices, temperature=number(20.5, unit="Cel"), door=Reading(bool_value=False))
    answered = await report(devices, door=Reading(bool_value=True), mode=Reading(string_value="éco"))
    assert await latest(devices) == answered
    assert answered.readings["temperature"].double_value == 20.5
    assert answered.readings["temperature"].unit == "Cel"
    assert answered.readings["temperature"].HasField("time")
    assert answered.readings["door"].bool_value
    assert answered.readings["mode"].string_value == "éco"
    life = answered.expire_time.ToMicroseconds() - answered.report_time.ToMicroseconds()
    assert life == 30_000_000


async def test_an_older_reading_does_not_replace_a_newer(devices: Devices) -> None:
    await create(devices)
    await report(devices, a=number(2, at=200))
    await report(devices, a=number(1, at=100), b=number(1, at=100))
    await report(devices, b=number(7, at=100))
    readings = (await latest(devices)).readings
    assert (readings["a"].double_value, readings["b"].double_value) == (2, 7)


async def test_any_order_of_reports_ends_with_the_newest(devices: Devices) -> None:
    await create(devices)
    await asyncio.gather(*(report(devices, a=number(at, at=at)) for at in (5, 3, 9, 1, 7, 2, 8)))
    assert (await latest(devices)).readings["a"].double_value == 9


async def test_a_clock_that_was_ahead_does_not_pin_its_readings(devices: Devices) -> None:
    await create(devices)
    await report(devices, a=number(1, at=4_000_000_000))
    await report(devices, a=number(2))
    assert (await latest(devices)).readings["a"].double_value == 2


async def test_the_oldest_go_when_there_are_too_many(devices: Devices) -> None:
    await create(devices)
    for start in range(0, MOST_READINGS, 32):
        await report(devices, "d1", **{f"n{n}": number(n, at=1000 + n) for n in range(start, start + 32)})
    readings = (await report(devices, last=number(0, at=5000))).readings
    assert len(readings) == MOST_READINGS
    assert "n0" not in readings
    assert {"n1", "last"} <= set(readings)


async def test_a_reading_has_a_value(devices: Devices) -> None:
    await create(devices)
    with pytest.raises(ApiError) as refusal:
        await report(devices, good=number(1), bad=Reading(unit="Cel"))
    assert [violation.field for violation in refusal.value.violations] == ['readings["bad"]']
    assert not (await latest(devices)).readings


async def test_it_goes_with_its_device_and_tenant(devices: Devices) -> None:
    await create(devices)
    await report(devices, a=number(1))
    with devices.tenant("other"):
        for call in (report(devices, a=number(1)), latest(devices)):
            with refused("DEVICE_NOT_FOUND"):
                await call
        await create(devices)
        assert not (await latest(devices)).readings
    await delete(devices)
    with refused("DEVICE_NOT_FOUND"):
        await latest(devices)
    await create(devices)
    assert not (await latest(devices)).readings


async def test_a_disabled_device_is_refused(devices: Devices) -> None:
    await create(devices)
    await set_status(devices, DEVICE_STATUS_DISABLED)
    with refused("DEVICE_DISABLED"):
        await report(devices, a=number(1))


async def test_it_is_forgotten_when_nothing_more_comes(store: CountingStore, valkey: Valkey) -> None:
    config = Config(cache=CacheTtl(telemetry_ttl=Seconds(0.2)))
    async with replica(store, valkey, SystemClock(), config) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await report(devices, a=number(1))

            async def forgotten() -> bool:
                return await latest(devices) == Telemetry(device_id="d1")

            await eventually(forgotten, "the readings are forgotten")


async def test_without_the_cache_it_is_unavailable_and_not_empty(store: CountingStore, own_valkey: Valkey) -> None:
    async with replica(store, own_valkey, SystemClock()) as devices:
        with devices.tenant("acme"):
            await create(devices)
            await own_valkey.kill()
            for call in (report(devices, a=number(1)), latest(devices)):
                with refused("CACHE_UNAVAILABLE"):
                    await call
            with refused("DEVICE_NOT_FOUND"):
                await latest(devices, "none")
