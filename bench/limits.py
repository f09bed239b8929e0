"""What a tenant's limit costs a call: from tokens that are held, in all, refused; and what is remembered of tenants."""

import asyncio
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

from bench.report import Report
from chassis import config
from chassis.cache.client import open_cache
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.resilience.limits.limiter import Limiter, Take
from chassis.resilience.limits.policies import Policies, default_of
from chassis.telemetry.metrics import Metrics
from launcher.valkey import EmbeddedValkey

_TENANTS = 200
_CALLERS = 32
_REMEMBERED = 10_000


async def limits(report: Report, folder: Path) -> None:
    """Against a Valkey of its own. All callers share this process's loop with it."""
    valkey = EmbeddedValkey(folder / "valkey-limits")
    await valkey.start()
    cache = open_cache(config.Redis(url=valkey.url, op_timeout=config.Seconds(1.0)), Metrics())
    made: list[Limiter] = []

    def take_of(rate: float, burst: int) -> Take:
        settings = config.Limits(rate=rate, burst=burst, tenants=_REMEMBERED)
        made.append(Limiter(settings, Policies(default_of(settings)), cache, SystemClock(), Metrics()))
        return made[-1].of(f"v{len(made)}")

    try:
        await _held(report, take_of(1e6, 10_000_000))
        await _in_all(report, take_of(500.0, 1000))
        await _refused(report, take_of(0.1, 1))
        await _memory(report, take_of(500.0, 1000))
    finally:
        for limiter in made:
            await limiter.close()
        await cache.close()
        await valkey.stop()


async def _held(report: Report, take: Take) -> None:
    for _ in range(30):  # until the slice is large
        await _decide(take, "t")
        await asyncio.sleep(0.002)
    taken = []
    for _ in range(300):
        begun = time.perf_counter()
        for _ in range(100):
            await _decide(take, "t")
        taken.append((time.perf_counter() - begun) / 100)
        await asyncio.sleep(0)
    taken.sort()
    report.tells("limiter, from what is held, a decision", taken[150] * 1e6, "us")
    report.below("limiter, from what is held, p99", taken[297] * 1e3, 1.0)


async def _in_all(report: Report, take: Take) -> None:
    taken: list[float] = []

    async def caller(number: int) -> None:
        for call in range(400):
            begun = time.perf_counter()
            await _decide(take, f"t{(number * 7 + call) % _TENANTS}")
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(caller(number) for number in range(_CALLERS)))
    taken.sort()
    note = f"{_CALLERS} callers, {_TENANTS} tenants, p50 {taken[len(taken) // 2] * 1e6:.1f} us"
    report.below("limiter, in all, p99", taken[int(len(taken) * 0.99)] * 1e3, 5.0, note=note)


async def _refused(report: Report, take: Take) -> None:
    begun = time.perf_counter()
    for _ in range(5000):
        await _decide(take, "t")
    report.tells("limiter, a refusal", (time.perf_counter() - begun) / 5000 * 1e6, "us")


async def _memory(report: Report, take: Take) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(_REMEMBERED):
            await _decide(take, f"tenant-{number}")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    report.below(f"limiter, memory of {_REMEMBERED} tenants", taken / 1e6, 5.0, unit="MB")


async def _decide(take: Take, tenant: str) -> None:
    with suppress(ApiError):
        pending = take(tenant, time.monotonic())
        if pending is not None:
            await pending
