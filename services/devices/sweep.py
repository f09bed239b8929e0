"""Turning devices offline whose heartbeats lapsed: any number of replicas sweep, each device turns once.

Two ways lead to a silent device: its due time in the cache, and, for those that the cache no longer knows, the store's
ONLINE devices that were last seen long ago. Both end in `_look_into`, where the device is read before its presence is
looked at: a heartbeat in between is seen, one after that commits (`presence.flush_due`) and so fails our commit.
While the cache is away, or its memory is too young, nobody is declared offline.
"""

import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import structlog

from chassis.cache.together import together
from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.telemetry.metrics import Metrics
from services.devices.heartbeats import SHARDS, Heartbeats
from services.devices.presence import Limits, lapsed
from services.devices.store import DeviceStore

TOGETHER: Final = 16
"""Shards asked, or devices looked into, at once: enough to share round trips and commits, few enough that the cache
answers them all in an operation's time."""

CLAIMED_AT_ONCE: Final = 100
CLAIMS_A_SHARD: Final = 10
"""So that a mass outage is worked off in turns: what is left is due again at the next sweep."""

SCANNED_A_TENANT: Final = 500

_T = TypeVar("_T")


class Sweep:
    def __init__(
        self,
        heartbeats: Heartbeats,
        store: DeviceStore,
        clock: Clock,
        limits: Limits,
        interval: float,
        metrics: Metrics,
    ) -> None:
        self._heartbeats = heartbeats
        self._store = store
        self._clock = clock
        self._limits = limits
        self._interval = interval
        self._lapses = metrics.counter("bas_devices_lapsed", "Devices turned offline because their heartbeats lapsed.")
        self._failures = metrics.counter("bas_devices_sweep_failures", "Sweeps that were cut short.", ("reason",))
        self._log = structlog.get_logger("devices.sweep")

    async def run(self) -> None:
        """Sweep until cancelled; a store or cache that is away costs one round."""
        while True:
            await self._clock.sleep(self._interval)
            try:
                await self.due()
                if await self._heartbeats.turn("scan", self._limits.offline_after):
                    await self.forgotten()
            except ApiError as failure:
                self._failures.labels(failure.reason).inc()
                self._log.warning("sweep cut short", reason=failure.reason)

    async def due(self) -> int:
        """Look into every device whose silence is due; how many turned offline."""
        turned = 0
        shards: Sequence[int] = range(SHARDS)
        for _ in range(CLAIMS_A_SHARD):
            full: list[int] = []
            for asked in _parts(shards):
                claims = await together(self._heartbeats.claim(shard, CLAIMED_AT_ONCE) for shard in asked)
                turned += await self._look_into_all(list(itertools.chain.from_iterable(claims)))
                full += [shard for shard, claimed in zip(asked, claims, strict=True) if len(claimed) == CLAIMED_AT_ONCE]
            if not full:
                break
            shards = full
        return turned

    async def forgotten(self) -> int:
        """Look into devices that the store has as ONLINE and that were not seen for long; how many turned offline."""
        turned = 0
        longest = self._limits.offline_after + self._limits.flush_interval
        before = self._clock.now() - timedelta(milliseconds=longest)
        async for tenant in self._store.tenants():
            unseen_ids = await self._store.online_unseen_since(tenant, before, SCANNED_A_TENANT)
            turned += await self._look_into_all([(tenant, device_id) for device_id in unseen_ids])
        return turned

    async def _look_into_all(self, devices: Sequence[tuple[str, str]]) -> int:
        turned = 0
        for some in _parts(devices):
            turned += sum(await together(self._look_into(*device) for device in some))
        return turned

    async def _look_into(self, tenant: str, device_id: str) -> int:
        stored = await self._store.read(tenant, device_id)
        sight = await self._heartbeats.look(tenant, device_id)
        if not sight.settled:
            return 0
        if stored is None:
            await self._heartbeats.forget(tenant, device_id)
            return 0
        last_seen = max(sight.last, stored.last_seen)
        if not lapsed(last_seen, sight.now, self._limits.offline_after):
            return 0
        turned = await self._store.turn_offline(stored)
        if turned is not None:
            await self._heartbeats.settle(tenant, device_id, sight.last)
        if turned:
            self._lapses.inc()
        return 1 if turned else 0


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER))
