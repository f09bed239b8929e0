"""Load, bounded in count and time: closed loop for the most that goes through, open loop for latency at a given rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

Call: TypeAlias = Callable[[int], Awaitable[None]]
"""One operation; the argument is the caller's number, so that a connection can be kept by each."""


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in seconds, sorted; `errors` are calls that raised."""

    latencies: list[float]
    seconds: float
    errors: int

    @property
    def rate(self) -> float:
        """Successful calls a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Nearest-rank percentile in seconds; NaN when nothing succeeded."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def closed(call: Call, *, callers: int, seconds: float, warm: float = 0.5) -> Result:
    """`callers` callers, each with one call in flight, for `seconds` after `warm` seconds that do not count."""
    latencies: list[float] = []
    errors = 0
    begin = time.perf_counter() + warm
    end = begin + seconds

    async def caller(number: int) -> None:
        nonlocal errors
        while (start := time.perf_counter()) < end:
            try:
                await call(number)
            except Exception:  # noqa: BLE001 - whatever fails is a failed call, counted and reported
                errors += 1
                await asyncio.sleep(0.001)
                continue
            if start >= begin:
                latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    latencies.sort()
    return Result(latencies, time.perf_counter() - begin, errors)


async def paced(call: Call, *, rate: float, seconds: float, callers: int = 256) -> Result:
    """Calls started at a constant `rate` whatever the answers do; latency counts from the planned start, so that a
    stalled server is not flattered by calls that were never sent (coordinated omission). At most `callers` in flight."""
    latencies: list[float] = []
    errors = 0
    free = list(range(callers))
    running: set[asyncio.Task[None]] = set()

    async def one(number: int, planned: float) -> None:
        nonlocal errors
        try:
            await call(number)
            latencies.append(time.perf_counter() - planned)
        except Exception:  # noqa: BLE001 - see closed()
            errors += 1
        finally:
            free.append(number)

    begin = time.perf_counter()
    total = int(rate * seconds)
    for index in range(total):
        planned = begin + index / rate
        ahead = planned - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        while not free:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(one(free.pop(), planned))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running, timeout=10)
    latencies.sort()
    return Result(latencies, time.perf_counter() - begin, errors)
