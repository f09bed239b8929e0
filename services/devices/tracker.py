"""Status and presence of devices: heartbeats, statuses set by hand, and what is left of a device when it goes.

A heartbeat costs a cached read and one script. It reaches the store when it changes the status, and else at most once
in a flush interval; while the cache is away the store alone decides, at most once in the fallback interval.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_ONLINE,
    Device,
    DeviceStatus,
)
from bas.devices.v2.devices_service_pb2 import HeartbeatResponse
from chassis.cache.port import CacheUnavailable
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.store.landing import Landings
from services.devices import device as rules
from services.devices.heartbeats import Heard, Heartbeats
from services.devices.presence import Beat, Limits, follow, millis, moment, next_interval
from services.devices.records import Stored
from services.devices.store import DeviceStore
from services.devices.telemetry import TelemetrySnapshots

_FACTS = frozenset({Code.NOT_FOUND, Code.FAILED_PRECONDITION})
"""What the store knows better than the cache, as opposed to the store being in trouble."""


class Tracker:
    def __init__(
        self,
        store: DeviceStore,
        heartbeats: Heartbeats,
        telemetry: TelemetrySnapshots,
        landings: Landings,
        clock: Clock,
        limits: Limits,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._landings = landings
        self._heartbeats = heartbeats
        self._telemetry = telemetry
        self._clock = clock
        self._limits = limits
        self._random_bytes = random_bytes

    async def heartbeat(self, tenant: str, device_id: str, beat: Beat) -> HeartbeatResponse:
        """Raises DEVICE_NOT_FOUND, DEVICE_DISABLED; what the store raises, when a change of status cannot be stored."""
        device = Device.FromString(await self._store.get(tenant, device_id))
        if device.status == DEVICE_STATUS_DISABLED:
            raise rules.disabled(device_id)
        try:
            heard = await self._heartbeats.beat(tenant, device_id, beat)
        except asyncio.CancelledError:
            # The script may have run, and left the flush to us.
            self._landings.begin(self._take_back(tenant, device_id))
            raise
        except CacheUnavailable:
            status = await self._without_cache(tenant, device, beat)
        else:
            status = await self._heard(tenant, device, beat, heard)
        response = HeartbeatResponse(status=status)
        share = int.from_bytes(self._random_bytes(2), "big") / 65536
        response.next_interval.FromMilliseconds(next_interval(self._limits.interval, share))
        return response

    async def set_status(self, tenant: str, device_id: str, status: DeviceStatus.ValueType, reason: str) -> Device:
        """Raises DEVICE_NOT_FOUND, DEVICE_DISABLED, INVALID_ARGUMENT for a status that cannot be set."""
        now = self._clock.now()

        def decide(before: Stored) -> Stored | None:
            rules.settable(device_id, before.device.status, status)
            same = before.device.status == status and before.device.status_reason == reason
            stale = millis(now) - before.last_seen >= self._limits.flush_interval
            if same and not (status == DEVICE_STATUS_ONLINE and stale):
                return None
            after = before.copy()
            rules.turn(after.device, status, reason, now)
            if status == DEVICE_STATUS_ONLINE:
                after.device.last_seen_time.FromMilliseconds(max(before.last_seen, millis(now)))
            return after

        changed = await self._store.change(tenant, device_id, decide)
        try:
            if status == DEVICE_STATUS_ONLINE:
                await self._heartbeats.beat(tenant, device_id, Beat())
            else:
                await self._heartbeats.quiet(tenant, device_id)
        except CacheUnavailable:
            pass  # The status is what counts; presence follows with the next heartbeat, or its absence.
        return changed.device

    async def forget(self, tenant: str, device_id: str) -> None:
        """The device is gone, and with it what the cache alone knew."""
        try:
            await self._heartbeats.forget(tenant, device_id)
            await self._telemetry.forget(tenant, device_id)
        except CacheUnavailable:
            pass  # Both expire; a sweep that finds no device forgets its presence.

    async def _heard(self, tenant: str, device: Device, beat: Beat, heard: Heard) -> DeviceStatus.ValueType:
        if not (heard.flush or (heard.live and device.status in rules.BY_HEARTBEAT)):
            return device.status
        # What the cache says is flushed must be, or be taken back, also when the device does not wait for the answer.
        return await self._landings.land(self._flush(tenant, device, beat, heard))

    async def _flush(self, tenant: str, device: Device, beat: Beat, heard: Heard) -> DeviceStatus.ValueType:
        least = 0 if heard.flush else self._limits.flush_interval
        try:
            return await self._see(tenant, device.device_id, beat, heard.now, least)
        except ApiError as failure:
            await self._undo(tenant, device.device_id, failure)
            # The cache has the heartbeat and the status stays as it is: only last_seen_time lags.
            if failure.code in _FACTS or device.status != DEVICE_STATUS_ONLINE:
                raise
            return device.status

    async def _without_cache(self, tenant: str, device: Device, beat: Beat) -> DeviceStatus.ValueType:
        least = self._limits.fallback_interval
        now = millis(self._clock.now())
        if device.status == DEVICE_STATUS_ONLINE and now - device.last_seen_time.ToMilliseconds() < least:
            return device.status
        return await self._see(tenant, device.device_id, beat, now, least)

    async def _see(self, tenant: str, device_id: str, beat: Beat, now: int, least: int) -> DeviceStatus.ValueType:
        changed = await self._store.change(tenant, device_id, lambda before: seen(before, beat, now, least))
        return changed.device.status

    async def _undo(self, tenant: str, device_id: str, failure: ApiError) -> None:
        """What the beat left in the cache is not so: no such device, not in service, or not flushed."""
        try:
            if failure.code is Code.NOT_FOUND:
                await self._heartbeats.forget(tenant, device_id)
            elif failure.code is Code.FAILED_PRECONDITION:
                await self._heartbeats.quiet(tenant, device_id)
            else:
                await self._heartbeats.unflush(tenant, device_id)
        except CacheUnavailable:
            pass

    async def _take_back(self, tenant: str, device_id: str) -> None:
        with suppress(CacheUnavailable):
            await self._heartbeats.unflush(tenant, device_id)


def seen(before: Stored, beat: Beat, now: int, least: int) -> Stored | None:
    """The device after a heartbeat at `now`; None when the store need not be written: the beat is old, or the device is
    online and was written as seen less than `least` milliseconds ago. Raises DEVICE_DISABLED."""
    if before.device.status == DEVICE_STATUS_DISABLED:
        raise rules.disabled(before.device.device_id)
    run = follow(before.run, beat)
    turning = before.device.status in rules.BY_HEARTBEAT
    if run is None or not (turning or now - before.last_seen >= least):
        return None
    after = Stored(before.tenant, before.copy().device, before.version, run)
    after.device.last_seen_time.FromMilliseconds(max(now, before.last_seen))
    if turning:
        rules.turn(after.device, DEVICE_STATUS_ONLINE, "", moment(now))
    return after
