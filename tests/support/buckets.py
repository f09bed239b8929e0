"""The shared buckets in memory: a twin of the script, and what may happen between a limiter and it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

from chassis.cache.port import Arg, CacheUnavailable, Reply, Script
from chassis.clock import Clock
from chassis.resilience.limits.gcra import GRANT
from tests.support.memory_cache import MemoryCache


class Buckets(MemoryCache):
    """`asked` is awaited before a request takes effect, `answering` before its answer is given: to hold them, and to lose
    them by raising CacheUnavailable. `full_at` is in microseconds, by key."""

    def __init__(self, clock: Clock, full_at: dict[str, float] | None = None) -> None:
        super().__init__(clock)
        self.full_at: dict[str, float] = {} if full_at is None else full_at
        self.requests: list[tuple[float, ...]] = []
        self.asked: Callable[[], Awaitable[None]] = _at_once
        self.answering: Callable[[], Awaitable[None]] = _at_once

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        assert script is GRANT
        numbers = [float(arg) for arg in args]
        self.requests.append(tuple(numbers))
        await self.asked()
        if self.away:
            raise CacheUnavailable
        reply = self.grant(keys[0], *numbers)
        await self.answering()
        return reply

    def grant(
        self,
        key: str,
        now: float,
        gap: float,
        full: float,
        wanted: float,
        back: float,
        lacking: float,
        force: float = 0,
    ) -> Reply:
        now = now or self._clock.monotonic() * 1e6
        known = self.full_at.get(key)
        at = now + lacking if known is None else known - back * gap
        if force:
            at = max(at, now + lacking)
        at = max(now, min(at, now + full))
        there = math.floor((now + full - at) / gap + 0.001)
        granted = int(min(wanted, there))
        at += granted * gap
        self.full_at[key] = at
        wait = max(1, math.ceil(at + gap - now - full)) if granted < wanted else 0
        return [granted, wait, there - granted]


async def _at_once() -> None:
    pass


async def lost() -> None:
    """For `asked` or `answering`."""
    raise CacheUnavailable


async def settle() -> None:
    """Let everything that does not wait for time run."""
    for _ in range(20):
        await asyncio.sleep(0)
