"""Clients that leave: the call that is made for one of them is cancelled."""

import asyncio
from typing import Final

from gateway.request import Receive

GRACE: Final = 0.02
"""Seconds that a call goes unwatched, at least. Most are over by then, and a task for each would be a tenth of their
cost."""


class Departure:
    """The watch over one request's client; its end is the business of whoever began it."""

    __slots__ = ("_owner", "_receive", "_watch", "happened")

    def __init__(self, receive: Receive, owner: "asyncio.Task[object] | None") -> None:
        self._receive = receive
        self._owner = owner
        self._watch: asyncio.Task[None] | None = None
        self.happened = False

    def begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    def end(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        if self._owner is not None:
            self._owner.cancel()


class Departures:
    """All watches of a gateway. One timer serves them all: at each tick, those that were there at the one before begin."""

    def __init__(self) -> None:
        self._young: set[Departure] = set()
        self._old: set[Departure] = set()
        self._armed = False

    def watch(self, receive: Receive) -> Departure:
        """Cancel the current task, with `happened` set, if the client leaves before `leave`."""
        departure = Departure(receive, asyncio.current_task())
        self._young.add(departure)
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(GRACE, self._tick)
        return departure

    def leave(self, departure: Departure) -> None:
        """Stop watching."""
        self._young.discard(departure)
        self._old.discard(departure)
        departure.end()

    def _tick(self) -> None:
        for departure in self._old:
            departure.begin()
        self._old, self._young = self._young, set()
        self._armed = bool(self._old)
        if self._armed:
            asyncio.get_running_loop().call_later(GRACE, self._tick)
