"""Limiters on a clock that is held, over buckets in memory."""

import asyncio
from collections.abc import Awaitable

from chassis.clock import FakeClock
from chassis.config import Limits
from chassis.errors import ApiError
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.limits.policies import Policies, default_of
from chassis.telemetry.metrics import Metrics
from tests.support.buckets import Buckets


class Rig:
    """One process."""

    def __init__(self, limits: Limits, clock: FakeClock | None = None, buckets: Buckets | None = None) -> None:
        self.clock = clock or FakeClock()
        self.buckets = buckets or Buckets(self.clock)
        self.metrics = Metrics()
        self.limiter = Limiter(limits, Policies(default_of(limits)), self.buckets, self.clock, self.metrics)

    async def take(self, tenant: str = "acme", version: str = "v2") -> ApiError | None:
        """None when it may."""
        try:
            pending = self.limiter.of(version)(tenant, self.clock.monotonic())
            if pending is not None:
                await within_reason(pending)
        except ApiError as refusal:
            return refusal
        return None

    async def taken(self, count: int, tenant: str = "acme", version: str = "v2") -> int:
        """How many of `count` were admitted, one after the other."""
        return sum([await self.take(tenant, version) is None for _ in range(count)])

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def within_reason(pending: Awaitable[None]) -> None:
    async with asyncio.timeout(30):
        await pending
