"""Keeps the parts of a platform running: starts each, starts it again when it ends, stops all within a bound.

Nothing is ever given up: a part that keeps ending is started again at growing intervals, and each time is said.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from chassis.clock import Clock
from launcher.backoff import Backoff
from launcher.failure import MISUSED


class Part(Protocol):
    """A process that can be kept running."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None:
        """Start it; it may not be ready yet. Raises PartError when that cannot be done."""
        ...

    async def wait(self) -> int:
        """The exit code once it has ended; negative is a signal's number."""
        ...

    async def stop(self, *, grace: float) -> None:
        """Ask it to end; after `grace` seconds end it. Returns when it has gone; harmless when it already has."""
        ...


class PartError(Exception):
    """A part could not be started; the message says why."""


class Supervisor:
    """Owns one task a part, from `add` to `stop`."""

    def __init__(self, *, clock: Clock, backoff: Backoff, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._backoff = backoff
        self._say = say
        self._keepers: dict[str, tuple[Part, asyncio.Task[None]]] = {}
        self._refused: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self.restarts: dict[str, int] = {}

    async def add(self, part: Part) -> None:
        """Start `part` and keep it running. Raises PartError when the very first start fails."""
        await part.start()
        self.restarts[part.name] = 0
        self._keepers[part.name] = (part, asyncio.create_task(self._keep(part), name=f"keep {part.name}"))

    async def refused(self) -> str:
        """Wait for a part that ends with exit code 2, which no restart can mend; the answer is its name."""
        return await self._refused.get()

    async def stop(self, names: Iterable[str], *, grace: float) -> None:
        """Stop these parts together, each within `grace` seconds; those that do not run are passed over."""
        stopping = [self._keepers.pop(name) for name in tuple(names) if name in self._keepers]
        for _, keeper in stopping:
            keeper.cancel()
        await asyncio.gather(*(keeper for _, keeper in stopping), return_exceptions=True)
        await asyncio.gather(*(part.stop(grace=grace) for part, _ in stopping))

    async def _keep(self, part: Part) -> None:
        failures = 0
        running = True
        while True:
            if running:
                since = self._clock.monotonic()
                code = await part.wait()
                if self._clock.monotonic() - since >= self._backoff.settled:
                    failures = 0
                if code == MISUSED and not self._refused.full():
                    self._refused.put_nowait(part.name)
                reason = _ended(code)
            failures += 1
            delay = self._backoff.delay(failures)
            self._say(f"{part.name} {reason}; starting it again in {delay:.1f} s")
            await self._clock.sleep(delay)
            self.restarts[part.name] += 1
            try:
                await part.start()
                running = True
            except PartError as problem:
                running, reason = False, f"did not start ({problem})"


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
