"""Time as a dependency: production reads the machine's clocks, tests hold the hands."""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The three ways in which a program meets time."""

    def now(self) -> datetime:
        """Wall time, aware, UTC, whole microseconds: the resolution every store keeps."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time; zero or less only yields."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class FakeClock:
    """A clock that moves only when it is told to; sleepers wake in the order of their deadlines."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._wall = start
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many wait for this clock. Who works with a real thread or socket may not have come back to it yet: wait for
        that before the next `advance`, or what it would have slept through is not counted."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move both hands forward and let everything that becomes due run, in order."""
        target = self._monotonic + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._move_to(due)
            if not woken.done():
                woken.set_result(None)
            await self._settle()
        self._move_to(target)
        await self._settle()

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock alone, as an administrator or NTP does."""
        self._wall += timedelta(seconds=seconds)

    def _move_to(self, monotonic: float) -> None:
        if monotonic > self._monotonic:
            self._wall += timedelta(seconds=monotonic - self._monotonic)
            self._monotonic = monotonic

    @staticmethod
    async def _settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
