"""What the service's loops wait for: a time, or to be told, whichever is first."""

import asyncio

from chassis.clock import Clock


class Bell:
    """One waits, anybody rings; a ring while nobody waits is not lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Return after that time, or as soon as it has rung."""
        if not self._rung.is_set():
            sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
            ringing = asyncio.ensure_future(self._rung.wait())
            try:
                await asyncio.wait((sleeping, ringing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                ringing.cancel()
        self._rung.clear()
