"""Removing what became too old from the logs of tenants who publish nothing; those who do are trimmed as they publish."""

import structlog

from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.telemetry.metrics import Metrics
from services.events.store import RedisEventLog

TENANTS_A_ROUND = 100
"""Of each shard, with at most a thousand events of each: what is left is due at the next round."""


class Sweep:
    """Any number of processes may sweep: what one removes is not there for the other."""

    def __init__(self, log: RedisEventLog, shards: int, interval: float, clock: Clock, metrics: Metrics) -> None:
        self._log = log
        self._shards = shards
        self._interval = interval
        self._clock = clock
        self._removed = metrics.counter("bas_events_expired", "Events removed by the sweep because of their age.")
        self._failures = metrics.counter("bas_events_sweep_failures", "Shards that could not be swept.", ("reason",))
        self._say = structlog.get_logger("events.sweep")

    async def run(self) -> None:
        """Sweep until cancelled, a shard at a time, spread over the interval: a log that is away costs that shard its round."""
        while True:
            for shard in range(self._shards):
                await self._clock.sleep(self._interval / self._shards)
                await self.sweep(shard)

    async def sweep(self, shard: int) -> None:
        try:
            self._removed.inc(await self._log.sweep(shard, TENANTS_A_ROUND))
        except ApiError as problem:
            self._failures.labels(problem.reason).inc()
            self._say.warning("a shard of the event log was not swept", shard=shard, reason=problem.reason)
