"""Follows one shard of the log while somebody listens to it, and hands what comes to the audiences of its tenants."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import islice
from typing import Final

from chassis.clock import Clock
from services.events.audience import Audience
from services.events.frames import framed
from services.events.port import Broken, Entry, EventLog
from services.events.ring import Ring
from services.events.wheel import Wheel

_AT_ONCE: Final = 64
"""Events handed out before others may run: those who write them, above all."""


class Follower:
    """One shard."""

    def __init__(self, shard: int, log: EventLog, ring: Ring, wheel: Wheel, clock: Clock) -> None:
        self._shard = shard
        self._log = log
        self._ring = ring
        self._wheel = wheel
        self._clock = clock
        self._audiences: dict[str, Audience] = {}
        self._wanted = asyncio.Event()
        self._follows = False

    def audience(self, tenant: str) -> Audience:
        """The audience of a tenant of this shard. What is appended from now on will come to it, soon after this."""
        audience = self._audiences.get(tenant)
        if audience is None:
            audience = Audience(
                tenant,
                self._log,
                self._ring,
                self._wheel,
                self._clock.monotonic,
                lambda: self._remove(tenant),
                followed=self._follows,
            )
            self._audiences[tenant] = audience
            self._wanted.set()
        return audience

    def audiences(self) -> tuple[Audience, ...]:
        return tuple(self._audiences.values())

    async def run(self) -> None:
        """Follow whenever there is an audience, for ever."""
        while True:
            await self._wanted.wait()
            await self._follow()

    async def _follow(self) -> None:
        brought = self._log.follow(self._shard)
        try:
            async for item in brought:
                if not self._audiences:
                    self._wanted.clear()
                    return
                if not self._follows:
                    self._begin()
                if isinstance(item, Broken):
                    self._break(item)
                else:
                    await self._hand_out(item)
        finally:
            self._end()
            if isinstance(brought, AsyncGenerator):
                await brought.aclose()

    async def _hand_out(self, entries: Sequence[Entry]) -> None:
        remaining = iter(entries)
        while chunk := list(islice(remaining, _AT_ONCE)):
            now = self._clock.monotonic()
            by_tenant: dict[str, list[Entry]] = {}
            for entry in chunk:
                if entry.tenant in self._audiences:
                    by_tenant.setdefault(entry.tenant, []).append(entry)
            for tenant, theirs in by_tenant.items():
                self._audiences[tenant].take([framed(entry, now) for entry in theirs])
            await asyncio.sleep(0)

    def _begin(self) -> None:
        self._follows = True
        for audience in self.audiences():
            audience.followed = True
            audience.look_again()

    def _break(self, broken: Broken) -> None:
        for audience in self.audiences():
            if broken.tenant in ("", audience.tenant):
                audience.lose_place()

    def _end(self) -> None:
        self._follows = False
        for audience in self.audiences():
            audience.followed = False
            audience.lose_place()
        self._ring.clear()

    def _remove(self, tenant: str) -> None:
        self._audiences.pop(tenant, None)
