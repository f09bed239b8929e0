"""Publishers that do not rest until each of their events is stored, and a tenant with its publishers, readers and log."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from chassis.api.cursors import Position
from chassis.auth.keys import load
from chassis.auth.tokens import ALL_SCOPES, Grant, mint
from chassis.clock import SystemClock
from chassis.config import Auth
from tests.support import patience
from tests.support.browsers import Browser, all_of
from tests.support.continuity import Given, Log, Verdict, judge, position_of
from tests.support.eventually import eventually
from tests.support.platform import Platform

SOURCE = "/test"
TYPES = ("order.paid", "order.sent", "door.opened")
_AGAIN = 0.05
_STORED = 120.0


@dataclass
class Tenant:
    """`publish` puts what was stored into `log`, and asks again, with the same ids, where that is not sure."""

    name: str
    token: str
    client: httpx.AsyncClient
    log: Log = field(default_factory=Log)
    browsers: list[Browser] = field(default_factory=list)
    refusals: int = 0
    _count: int = 0

    async def publish(self, count: int = 1, **more: Any) -> Position:
        """So many events, in one publication; the position after them."""
        events = []
        for _ in range(count):
            self._count += 1
            kind = TYPES[self._count % len(TYPES)]
            subject = f"things/{self._count % 7}"
            name = f"{self.name}-{self._count}"
            events.append({"type": kind, "source": SOURCE, "id": name, "subject": subject} | more)
        results = await self.store(events)
        for event, result in zip(events, results, strict=True):
            self.log.add(Given(position_of(result["cursor"]), str(event["id"]), str(event["type"])))
        return position_of(results[-1]["cursor"])

    async def store(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Where these are, once they are stored."""
        async with asyncio.timeout(_STORED):
            while True:
                try:
                    answer = await self.client.post("/api/events", json={"events": events})
                except httpx.TransportError:
                    self.refusals += 1
                else:
                    if answer.status_code == 200:
                        results: list[dict[str, Any]] = answer.json()["results"]
                        return results
                    assert answer.status_code in {429, 503, 504}, answer.text
                    self.refusals += 1
                await asyncio.sleep(_AGAIN)

    def open(self, addresses: Sequence[str], query: str = "", **more: Any) -> Browser:
        browser = Browser(addresses, self.token, query, **more)
        self.browsers.append(browser)
        browser.open()
        return browser

    async def listening(self) -> None:
        """All of its browsers are."""
        await all_of(self.browsers, lambda each: each.listens, f"the browsers of {self.name} listen")

    async def told(self) -> Position:
        """One event more, which all browsers that are open have got to, or beyond it."""
        last = await self.publish(len(TYPES))  # one of each type: whatever a browser wants is among them

        def passed(browser: Browser) -> bool:
            at = browser.heard[-1].position if browser.heard else None
            if at is None or at.epoch != last.epoch or at.sequence <= last.sequence - len(TYPES):
                return False
            return not self.log.between(at, last.sequence + 1, browser.wants)

        await all_of(self.browsers, passed, f"the browsers of {self.name} have the last event")
        return last

    def verdict(self) -> Verdict:
        """Of all its browsers."""
        return judge(self.log, [browser.reading for browser in self.browsers])

    async def close(self) -> None:
        try:
            await asyncio.gather(*(browser.close() for browser in self.browsers))
        finally:
            await self.client.aclose()


def tenant(platform: Platform, name: str) -> Tenant:
    """One of a platform that runs. Its ids are its own as long as its name is."""
    grant = Grant(name, "tester", ALL_SCOPES, 3600.0)
    token = mint(load(platform.data / "keys.json"), Auth(), grant, SystemClock().now())
    headers = {"authorization": f"Bearer {token}", **patience.HEADERS}
    return Tenant(name, token, httpx.AsyncClient(base_url=platform.gateway, headers=headers, timeout=patience.CLIENT))


class Storm:
    """Publishes as fast as it is let, or `every` so many seconds, until the block ends."""

    def __init__(self, *tenants: Tenant, every: float = 0.0, batch: Callable[[], int] = lambda: 3) -> None:
        self._tenants = tenants
        self._every = every
        self._batch = batch
        self._tasks: list[asyncio.Task[None]] = []
        self.published = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(each)) for each in self._tenants]
        return self

    async def __aexit__(self, *problem: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def more(self, count: int) -> None:
        """Wait until so many more are stored."""
        goal = self.published + count
        await eventually(lambda: self.published >= goal, f"{count} more events", within=120.0)

    async def _run(self, one: Tenant) -> None:
        while True:
            count = self._batch()
            await one.publish(count)
            self.published += count
            await asyncio.sleep(self._every)
