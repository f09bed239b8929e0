"""Whether a tenant may make one more request, decided from tokens that this process was granted ahead.

A decision is a subtraction. About every 100 ms of use a slice of tokens is fetched from the shared bucket, before the last
one is used up; only where there is none does a caller wait for the fetch, within the time of one cache operation. What is
granted is debited at once, so that all processes together never admit more than the burst and what the rate brings.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Final, TypeAlias, cast

import structlog

from chassis.cache.port import Cache, CacheUnavailable
from chassis.clock import Clock
from chassis.config import Limits
from chassis.errors import QUOTA, ApiError, Code
from chassis.resilience.limits.bucket import Bucket
from chassis.resilience.limits.gcra import GRANT, key
from chassis.resilience.limits.policies import Policies, Policy
from chassis.telemetry.metrics import Metrics

TTL: Final = 1.0
"""Seconds for which granted tokens are good."""
PAUSE: Final = 0.25
"""Seconds between two looks whether the cache is back."""
_HOLD: Final = 0.02
"""Seconds at most for which a tenant that has used up everything is refused without another look."""
_QUIET: Final = 30.0
_MICRO: Final = 1e6

Take: TypeAlias = Callable[[str, float], "Awaitable[None] | None"]
"""(tenant, monotonic now) → None when it may, or what to await until that is known. Both raise RATE_LIMITED."""


def limited(policy: Policy, version: str, wait: float) -> ApiError:
    """The refusal. It is not repeated on the caller's behalf: that would take the retries of those who keep to theirs."""
    error = ApiError(
        Code.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        f"The tenant has used up its {policy.rate:g} requests a second, {policy.burst} at once, of API {version}.",
        metadata={QUOTA: "tenant", "rate": f"{policy.rate:g}", "burst": str(policy.burst), "version": version},
        retry_after=wait,
    )
    error.pushback = -1.0
    return error


class Limiter:
    """The limits of one process, on one event loop.

    While the cache is away each process goes by itself, at a share of the rate and with the same share of the burst; what
    it was granted before counts. `server_clock` False makes the buckets run on `clock`, for tests. Raises nothing but
    RATE_LIMITED.
    """

    def __init__(
        self,
        limits: Limits,
        policies: Policies,
        cache: Cache,
        clock: Clock,
        metrics: Metrics,
        *,
        server_clock: bool = True,
    ) -> None:
        self.policies = policies
        self.cache = cache
        self.now = clock.monotonic
        self.share = limits.replicas
        self.generation = max(1, limits.tenants // 2)
        self._server_clock = server_clock
        self._versions: dict[str, _Version] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("bas.limits")
        self._is_away = False
        self._away_until = 0.0
        self._quiet_until = 0.0
        self._away = metrics.gauge("bas_limits_away", "1 while limits are kept by this process alone.")
        self._asked = metrics.counter("bas_limits_leases", "Requests for tokens, by what came of them.", ("outcome",))
        self.refused: Callable[[], None] = metrics.counter(
            "bas_limits_refused", "Requests refused because the tenant had used up its limit."
        ).inc
        self.alone: Callable[[], None] = metrics.counter(
            "bas_limits_alone", "Requests admitted by this process alone while the cache was away."
        ).inc
        self._away.set(0)

    def of(self, version: str) -> Take:
        """The limits of one version of the API."""
        if version not in self._versions:
            self._versions[version] = _Version(self, version)
        return self._versions[version].take

    def use(self, policies: Policies) -> None:
        """From now on. Who has another limit than before begins without what was granted."""
        self.policies = policies
        for version in self._versions.values():
            version.review()

    def __len__(self) -> int:
        """How many tenants are remembered."""
        return sum(map(len, self._versions.values()))

    async def close(self) -> None:
        """Ask no more. Who waits is decided here."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def is_away(self) -> bool:
        return self._is_away

    def may_look(self, now: float) -> bool:
        """While the cache is away: whether it is time for one more look, which is then taken by who asks."""
        if now < self._away_until:
            return False
        self._away_until = now + PAUSE
        return True

    def spawn(self, asking: "Callable[[], Awaitable[None]]") -> None:
        async def run() -> None:
            await asking()

        # In a context of its own: it serves whoever waits, and outlives the call that began it.
        task = Context().run(asyncio.get_running_loop().create_task, run(), name="limits")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def grant(self, tenant: str, version: str, bucket: Bucket) -> bool:
        """One request for tokens; False when nobody answers. Never repeated: that could debit twice. What is given back is
        given back once, or never."""
        begun = self.now()
        gap = _MICRO / bucket.policy.rate
        wanted, told, spare, bucket.spare = bucket.wanted(), bucket.alone, bucket.spare, 0
        at = 0 if self._server_clock else round(begun * _MICRO)
        full, lacking = gap * bucket.policy.burst, bucket.lacking(begun) * _MICRO
        try:
            args = (at, gap, full, wanted, spare, lacking, int(told > 0))
            reply = await self.cache.run(GRANT, (key(tenant, version),), args)
        except (CacheUnavailable, RuntimeError) as problem:
            self._lost(problem)
            return False
        granted, wait, _left = cast(list[int], reply)
        if self._is_away:
            self._is_away = False
            self._away.set(0)
        self._asked.labels("granted" if granted == wanted else "exhausted").inc()
        bucket.take_in(granted, told, self.share, begun, begun + TTL)
        if wait:
            hold = min(_HOLD, gap * bucket.policy.burst / 2 / _MICRO)
            bucket.close(self.now() + max(wait / _MICRO, hold))
        return True

    def _lost(self, problem: Exception) -> None:
        self._asked.labels("away").inc()
        self._away_until = self.now() + PAUSE
        if not self._is_away:
            self._is_away = True
            self._away.set(1)
            if self._away_until >= self._quiet_until:  # a cache that comes and goes is one line in a while
                self._quiet_until = self._away_until + _QUIET
                self._log.warning("limits are kept by this process alone", problem=str(problem), replicas=self.share)


class _Version:
    """The tenants of one API version: those seen lately, and those before them, of which the half is forgotten at a time.
    That costs a decision nothing, as moving each to the end of a list would."""

    def __init__(self, limiter: Limiter, version: str) -> None:
        self._limiter = limiter
        self._version = version
        self._young: dict[str, Bucket] = {}
        self._old: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def take(self, tenant: str, now: float) -> Awaitable[None] | None:
        bucket = self._young.get(tenant)
        if bucket is None:
            bucket = self._meet(tenant)
        tokens = bucket.tokens
        if tokens and now < bucket.until:
            bucket.tokens = tokens = tokens - 1
            if tokens == bucket.mark and not bucket.asking:
                bucket.grow()
                self._ask(tenant, bucket)
            return None
        return self._without(tenant, bucket, now)

    def review(self) -> None:
        for known in (self._young, self._old):
            for tenant, bucket in tuple(known.items()):
                if bucket.policy != self._limiter.policies.of(tenant, self._version):
                    del known[tenant]

    def _meet(self, tenant: str) -> Bucket:
        bucket = self._old.pop(tenant, None) or Bucket(self._limiter.policies.of(tenant, self._version))
        if len(self._young) >= self._limiter.generation:
            self._old, self._young = self._young, {}
        self._young[tenant] = bucket
        return bucket

    def _without(self, tenant: str, bucket: Bucket, now: float) -> Awaitable[None] | None:
        """There is nothing left to take from."""
        bucket.settle(self._limiter.share, now)
        if self._limiter.is_away():
            if not bucket.asking and self._limiter.may_look(now):
                self._ask(tenant, bucket)
            self._alone(bucket, now)
            return None
        if now < bucket.closed:
            raise self._refusal(bucket, bucket.closed - now)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if bucket.waiting is None:
            bucket.waiting = deque()
        bucket.waiting.append(waiter)
        if not bucket.asking:
            if now < bucket.until:
                bucket.grow()
            self._ask(tenant, bucket)
        return waiter

    def _ask(self, tenant: str, bucket: Bucket) -> None:
        bucket.asking = True
        self._limiter.spawn(lambda: self._asking(tenant, bucket))

    async def _asking(self, tenant: str, bucket: Bucket) -> None:
        """Ask until nobody waits."""
        answered = False
        try:
            while True:
                answered = await self._limiter.grant(tenant, self._version, bucket)
                if not answered or not self._hand_out(bucket):
                    break
        finally:
            bucket.asking = False
            if not answered:
                self._all_alone(bucket)
            bucket.waiting = None

    def _hand_out(self, bucket: Bucket) -> bool:
        """Give those who wait what there is, or the refusal; True if some came too late to be asked for."""
        waiting, now = bucket.waiting or (), self._limiter.now()
        while waiting:
            if waiting[0].done():  # it has left
                waiting.popleft()
            elif bucket.tokens:
                bucket.tokens -= 1
                waiting.popleft().set_result(None)
            elif now < bucket.closed:
                waiting.popleft().set_exception(self._refusal(bucket, bucket.closed - now))
            else:
                return True
        return False

    def _all_alone(self, bucket: Bucket) -> None:
        for waiter in bucket.waiting or ():
            if waiter.done():
                continue
            try:
                self._alone(bucket, self._limiter.now())
            except ApiError as refusal:
                waiter.set_exception(refusal)
            else:
                waiter.set_result(None)

    def _alone(self, bucket: Bucket, now: float) -> None:
        wait = bucket.take_alone(self._limiter.share, now)
        if wait:
            raise self._refusal(bucket, wait)
        self._limiter.alone()

    def _refusal(self, bucket: Bucket, wait: float) -> ApiError:
        self._limiter.refused()
        return limited(bucket.policy, self._version, wait)
