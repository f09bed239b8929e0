"""The latest readings of devices: a snapshot in the cache, which is their only home.

`{tel:<tenant>/<device>}` is a hash: reading name → time of measurement and the serialized reading; it lives for the
telemetry TTL after the last report. While the cache is away, reports and reads are UNAVAILABLE: an empty answer would
say that the device reported nothing.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from bas.devices.v2.devices_pb2 import Reading, Telemetry
from chassis.cache.port import Cache, Reply
from chassis.clock import Clock
from chassis.errors import Violation, invalid_argument
from services.devices import scripts
from services.devices.presence import micros

MOST_READINGS: Final = 128
"""Readings kept of one device; beyond, those measured longest ago go first."""

_REPORTED: Final = b"/"
_WIDTH: Final = 20


class TelemetrySnapshots:
    def __init__(self, cache: Cache, ttl: float, clock: Clock) -> None:
        self._cache = cache
        self._ttl = timedelta(seconds=ttl)
        self._clock = clock

    async def report(self, tenant: str, device_id: str, readings: Mapping[str, Reading]) -> Telemetry:
        """Merge the readings into the snapshot, each where it is not older than what is there. Raises INVALID_ARGUMENT
        for a reading without a value, CacheUnavailable."""
        now = self._clock.now()
        arguments: list[bytes | str | int] = [_stamp(now), self._ttl // timedelta(milliseconds=1), MOST_READINGS]
        for name, reading in _complete(readings).items():
            arguments += [name, *_timed(reading, now)]
        return self._snapshot(device_id, await self._cache.run(scripts.REPORT, [_key(tenant, device_id)], arguments))

    async def read(self, tenant: str, device_id: str) -> Telemetry:
        """The snapshot; without readings and times when there is none. Raises CacheUnavailable."""
        return self._snapshot(device_id, await self._cache.run(scripts.READINGS, [_key(tenant, device_id)]))

    async def forget(self, tenant: str, device_id: str) -> None:
        await self._cache.delete(_key(tenant, device_id))

    def _snapshot(self, device_id: str, reply: Reply) -> Telemetry:
        snapshot = Telemetry(device_id=device_id)
        held = _pairs(reply)
        reported = held.pop(_REPORTED, None)
        if reported is None:
            return snapshot
        for name, value in held.items():
            snapshot.readings[name.decode()].ParseFromString(value[_WIDTH:])
        snapshot.report_time.FromMicroseconds(int(reported))
        snapshot.expire_time.FromMicroseconds(int(reported) + self._ttl // timedelta(microseconds=1))
        return snapshot


def _complete(readings: Mapping[str, Reading]) -> Mapping[str, Reading]:
    empty = [name for name, reading in sorted(readings.items()) if reading.WhichOneof("value") is None]
    if empty:
        raise invalid_argument(*(Violation(f'readings["{name}"]', "must have a value") for name in empty))
    return readings


def _timed(reading: Reading, now: datetime) -> tuple[str, bytes]:
    """The time that orders a reading, and the reading with its time.

    A reading from the future is ordered as if measured now: a clock that was ahead, once set right, must not find all
    its new readings older than its old ones.
    """
    if not reading.HasField("time"):
        timed = Reading()
        timed.CopyFrom(reading)
        timed.time.FromDatetime(now)
        return _stamp(now), timed.SerializeToString()
    measured = max(0, min(reading.time.ToMicroseconds(), micros(now)))
    return f"{measured:0{_WIDTH}d}", reading.SerializeToString()


def _stamp(time: datetime) -> str:
    return f"{micros(time):0{_WIDTH}d}"


def _key(tenant: str, device_id: str) -> str:
    return f"{{tel:{tenant}/{device_id}}}"


def _pairs(reply: Reply) -> dict[bytes, bytes]:
    if not isinstance(reply, list):
        raise TypeError(f"a script answered {type(reply).__name__}, not a list")
    texts = [item for item in reply if isinstance(item, bytes)]
    return dict(zip(texts[::2], texts[1::2], strict=True))
