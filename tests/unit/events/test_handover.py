"""The hand-over from the log to what happens, over many orders of events: no gap and no duplicate in any.

A scenario is drawn from a number: who waits how long before what, when the follower fails, when the reader loses its
connection and comes back with the last cursor it saw. Everything runs on one event loop that waits for nothing, so a
number is always the same run.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random

import pytest

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import SubscribeEventsResponse
from chassis.api.cursors import Position
from services.events.filters import EventFilter
from services.events.frames import Frame
from services.events.port import Broken, Entry, Extent, Placed
from services.events.ring import Ring
from services.events.subscription import Subscription, Wish
from tests.support.event_log import MemoryEventLog
from tests.unit.events.rig import CURSORS, Rig, caller, event, rig, settle, wanting

TENANT = "acme"
SCENARIOS = 100


class Unhurried:
    """The log, with a wait of its own before and after each thing it does: what is read and what is answered are two
    moments, and the follower is somewhere behind."""

    def __init__(self, inner: MemoryEventLog, draw: Random) -> None:
        self._inner = inner
        self._draw = draw
        self._behind = draw.choice((0, 5, 40))
        self.shard_of = inner.shard_of
        self.cursor = inner.cursor

    async def publish(self, tenant: str, events: Sequence[CloudEvent]) -> list[Placed]:
        return await self._inner.publish(tenant, events)

    async def extent(self, tenant: str) -> Extent:
        await self._wait()
        extent = await self._inner.extent(tenant)
        await self._wait()
        return extent

    async def read(self, tenant: str, after: Position, *, limit: int, max_bytes: int) -> list[Entry]:
        await self._wait()
        page = await self._inner.read(tenant, after, limit=self._draw.randint(1, 8), max_bytes=max_bytes)
        await self._wait()
        return page

    async def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        await self._wait()
        async for told in self._inner.follow(shard):
            await settle(self._draw.randint(0, self._behind))
            yield told

    async def _wait(self) -> None:
        await settle(self._draw.choice((0, 0, 1, 2, 5, 15)))


async def run(number: int) -> None:
    """One scenario. AssertionError for whatever did not come exactly once and in order."""
    draw = Random(number)
    sizes = {"ring": draw.choice((16, 4096)), "queue_events": draw.choice((2, 5, 256))}
    async with rig(lambda inner: Unhurried(inner, draw), **sizes) as made:
        if draw.random() < 0.5:  # the shard is followed already
            await made.listening(who=caller("another"))
        before = draw.randint(0, 20)
        for name in range(before):
            await made.memory.publish(TENANT, [event(name, kind=kind(name))])
        wanted = draw.choice((EventFilter(), wanting("even.*")))
        begin = Position((await made.position()).epoch, draw.randint(0, before))
        total = before + draw.randint(1, 40)
        publisher = asyncio.create_task(storm(made, draw, before, total))
        try:
            got = await read(made, draw, Wish(wanted, begin), total)
        finally:
            await publisher
    expected = [name for name in range(begin.sequence, total) if wanted.everything or name % 2 == 0]
    assert got == expected, f"scenario {number}"


async def storm(made: Rig, draw: Random, first: int, end: int) -> None:
    shard = made.memory.shard_of(TENANT)
    name = first
    while name < end:
        batch = range(name, min(end, name + draw.randint(1, 6)))
        await made.memory.publish(TENANT, [event(each, kind=kind(each)) for each in batch])
        name = batch.stop
        await settle(draw.choice((0, 1, 3, 10)))
        happens = draw.random()
        if happens < 0.05:
            await made.restart_follower(shard)
        elif happens < 0.1:
            made.memory.skip(shard, draw.choice(("", TENANT)))
        elif happens < 0.15:
            made.memory.restart(shard)


async def read(made: Rig, draw: Random, wish: Wish, total: int) -> list[int]:
    """The events that a client gets which comes back, when it is sent away or loses its connection, with the last cursor
    that it saw. It has had all when a cursor says so."""
    got: list[int] = []
    for _ in range(200):
        assert wish.position is not None
        if wish.position.sequence >= total:
            return got
        messages = made.fanout.subscribe(caller(TENANT), wish)
        stays = draw.choice((2, 10, 1000))
        try:
            for _ in range(stays):
                raw = await following(made, messages.__anext__)
                if raw is None:
                    break
                message = SubscribeEventsResponse.FromString(raw)
                assert not message.HasField("gap"), message
                if message.HasField("event"):
                    got.append(int(message.event.event.id))
                said = getattr(message, str(message.WhichOneof("message"))).cursor
                wish = Wish(wish.filter, CURSORS.read(TENANT, said))
                if wish.position is not None and wish.position.sequence >= total:
                    break
                await settle(draw.choice((0, 0, 0, 2, 20)))
        finally:
            await messages.aclose()
    raise AssertionError(f"no end: {got}")


async def following(made: Rig, step: Callable[[], Awaitable[bytes]]) -> bytes | None:
    """The next message, time passing whenever nothing else happens; None after the last."""
    task = asyncio.ensure_future(step())
    try:
        for turn in range(1, 20_000):
            await asyncio.sleep(0)
            if task.done():
                break
            if turn % 60 == 0:
                await made.clock.advance(0.5)
        assert task.done(), "nothing comes any more"
        with suppress(StopAsyncIteration):
            return task.result()
        return None
    finally:
        task.cancel()


def kind(name: int) -> str:
    return "odd.one" if name % 2 else "even.one"


async def run_all() -> None:
    for number in range(SCENARIOS):
        await run(number)


async def test_nothing_is_lost_or_comes_twice_in_any_order() -> None:
    await run_all()


def _one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Ring.after
    monkeypatch.setattr(
        Ring, "after", lambda self, tenant, at: right(self, tenant, Position(at.epoch, max(0, at.sequence - 1)))
    )


def _one_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Ring.after
    monkeypatch.setattr(
        Ring, "after", lambda self, tenant, at: right(self, tenant, Position(at.epoch, at.sequence + 1))
    )


def _takes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Subscription.offer

    def offer(self: Subscription, frames: Sequence[Frame], before: Position | None) -> None:
        if self._known is not None:
            self._known = Position(self._known.epoch, self._known.sequence - 1)
        right(self, frames, before)

    monkeypatch.setattr(Subscription, "offer", offer)


@pytest.mark.parametrize("bug", [_one_too_many, _one_too_few, _takes_twice])
async def test_a_seeded_bug_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        await run_all()
