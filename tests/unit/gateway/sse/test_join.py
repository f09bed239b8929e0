"""Joining: between the log, the ring and what is to come nothing is lost and nothing comes twice, in any order of things.

Everything that happens is drawn: what is published when, where each browser was, how many turns of the loop each answer
takes, restarts, losses of the log. A browser's events are then checked one by one against the log.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bas.events.v2.events_pb2 import LoggedEvent
from chassis.api.cursors import Position, parse
from chassis.errors import ApiError
from gateway.sse.frames import Frame
from gateway.sse.ring import Ring
from gateway.sse.stream import Stream
from tests.support.events import FakeEvents
from tests.unit.gateway.sse.listening import Browser, Listening

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 5)),
        st.tuples(st.just("join"), st.integers(0, 30)),
        st.tuples(st.just("turns"), st.integers(1, 6)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("forget"), st.integers(1, 6)),
        st.tuples(st.just("roll back"), st.integers(0, 5)),
        st.tuples(st.just("beat"), st.just(0)),
        st.tuples(st.just("time"), st.integers(1, 3)),
    ),
    min_size=4,
    max_size=24,
)
_REST, _MOST = 8, 200
_DELAYS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


class World:
    """Runs the steps, and keeps what the log ever held."""

    def __init__(self, delays: list[int], page_size: int, ring: int) -> None:
        self._delays = delays
        self._paused = 0
        self.events = FakeEvents(self._pause)
        self.events.page_size = page_size
        self.listening = Listening(self.events)
        self.history: dict[str, list[LoggedEvent]] = {"e1": []}
        self.trouble = False
        self.joining: list[asyncio.Task[Any]] = []
        self.browsers: list[tuple[Browser, Position | None]] = []
        self._ring = ring

    async def _pause(self) -> None:
        self._paused += 1
        for _ in range(self._delays[self._paused % len(self._delays)]):
            await asyncio.sleep(0)

    async def step(self, name: str, number: int) -> None:
        log = self.events.logs["acme"]
        if name == "publish":
            for _ in range(number):
                self.history[log.epoch].append(self.events.publish(type_="a" if len(log.events) % 3 else "b"))
        elif name == "join":
            self._join(number)
        elif name == "turns":
            for _ in range(number):
                await asyncio.sleep(0)
        elif name == "time":
            await self.listening.clock.advance(number / 2)
        else:
            self._trouble(name, number)
        for followed in self.listening.hub._followed.values():
            followed.stream.ring._most = self._ring

    def _trouble(self, name: str, number: int) -> None:
        log = self.events.logs["acme"]
        if name == "restart":
            self.events.restart()
        elif name == "beat":
            self._beat()
        elif name == "forget":
            self.trouble = True
            self.events.forget(number)
        else:
            self.trouble = True
            epoch = f"e{len(self.history) + 1}"
            self.events.roll_back(epoch, min(number, len(log.events)))
            self.history[epoch] = [*_blank(log.floor), *log.events]

    def _beat(self) -> None:
        for stream in self.events.streams:
            stream.beat()

    def _join(self, number: int) -> None:
        log = self.events.logs["acme"]
        browser, position = Browser(), None
        if number:
            position = Position(log.epoch, max(0, log.end.sequence - number + 1))
        cursor = "" if position is None else self.events.cursors.write("acme", position)
        self.browsers.append((browser, position))
        types = ("a",) if number % 2 else ()
        self.joining.append(asyncio.create_task(self._insist(cursor, types, browser)))

    async def _insist(self, cursor: str, types: tuple[str, ...], browser: Browser) -> None:
        """As a browser does that is told to come back: a stream may break while it is opened for the first time."""
        while browser not in self.listening.connections:
            with suppress(ApiError):
                await self.listening.join(cursor, types=types, browser=browser)

    async def settle(self) -> None:
        """Let everything come to rest, then make sure of the end of the log."""
        turns = 0
        while turns < _REST or not all(each.done() for each in self.joining):
            turns += 1
            assert turns < _MOST, "somebody waits for ever"
            self._beat()
            await self.listening.clock.advance(1.0)
        await asyncio.gather(*self.joining)

    def check(self) -> None:
        for number, (browser, position) in enumerate(self.browsers):
            types = sorted({each.name for each in browser.events} - {"gap"})
            self._check(browser, position, number)
            assert set(types) <= {"a", "b"}

    def _check(self, browser: Browser, position: Position | None, number: int) -> None:
        connection = self.listening.connections[browser]
        only = self.listening.hub._streams[connection].request != b""
        for event in browser.events:
            here = parse(event.last_event_id)
            assert here is not None
            if event.name == "gap":
                assert self.trouble, f"browser {number}: a gap for nothing"
                assert json.loads(event.data)["cursor"] == event.last_event_id
                position = here
                continue
            if position is None:
                position = Position(here.epoch, here.sequence - 1)
            assert here.epoch == position.epoch, f"browser {number}: another log, unannounced"
            assert here.sequence > position.sequence, f"browser {number}: {here.sequence} twice"
            self._none_between(position, here.sequence - 1, number, only=only)
            position = here
        log = self.events.logs["acme"]
        if position is not None:
            assert position.epoch == log.epoch, f"browser {number}: stuck in another log"
            self._none_between(position, log.end.sequence, number, only=only)

    def _none_between(self, position: Position, last: int, number: int, *, only: bool) -> None:
        for logged in self.history[position.epoch][position.sequence : last]:
            lost = not only or logged.event.type == "a"
            assert not lost, f"browser {number}: lost {logged.cursor}"


def _blank(count: int) -> list[LoggedEvent]:
    return [LoggedEvent() for _ in range(count)]


async def _run(steps: list[tuple[str, int]], delays: list[int], page_size: int, ring: int) -> None:
    world = World(delays, page_size, ring)
    try:
        for name, number in steps:
            await world.step(name, number)
        await world.settle()
        world.check()
    finally:
        for each in world.joining:
            each.cancel()
        await asyncio.gather(*world.joining, return_exceptions=True)
        await world.listening.hub.close()


_STORM = [("publish", 5)] * 3 + [
    ("join", 12),
    ("turns", 2),
    ("publish", 3),
    ("join", 1),
    ("turns", 1),
    ("publish", 5),
] * 2


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS, delays=_DELAYS, page_size=st.integers(1, 4), ring=st.integers(1, 6))
@example(steps=_STORM, delays=[0, 3, 1], page_size=2, ring=3)
@example(steps=[*_STORM, ("roll back", 2), ("join", 3), *_STORM], delays=[2, 0, 5, 1], page_size=1, ring=6)
def test_nothing_lost_nothing_doubled(
    steps: list[tuple[str, int]], delays: list[int], page_size: int, ring: int
) -> None:
    asyncio.run(_run(steps, delays, page_size, ring))


def _grid() -> list[list[tuple[str, int]]]:
    """Joins from the log, the ring and the end, with something happening each number of turns later."""
    begun = [("publish", 5), ("join", 1), *[("turns", 6)] * 4, ("publish", 5), *[("turns", 6)] * 3]
    return [
        [*begun, ("join", back), ("turns", turns), (what, 2), ("turns", turns), ("publish", 5), ("join", 1)]
        for turns in range(1, 7)
        for back in (1, 3, 9)
        for what in ("publish", "roll back")
    ]


def _run_grid(*delays: list[int]) -> None:
    for steps in _grid():
        for each in delays:
            asyncio.run(_run(steps, each, 2, 6))


def _ring_one_early(monkeypatch: pytest.MonkeyPatch) -> None:
    after = Ring.after

    def early(self: Ring, position: Position, most_bytes: int) -> tuple[list[Frame], bool]:
        return after(self, Position(position.epoch, position.sequence - 1), most_bytes)

    monkeypatch.setattr(Ring, "after", early)


def _ring_one_late(monkeypatch: pytest.MonkeyPatch) -> None:
    after = Ring.after

    def late(self: Ring, position: Position, most_bytes: int) -> tuple[list[Frame], bool]:
        return after(self, Position(position.epoch, position.sequence + 1), most_bytes)

    monkeypatch.setattr(Ring, "after", late)


def _added_before_what_waits_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: Stream, connection: Any) -> None:
        self._members[connection.slot].add(connection)

    monkeypatch.setattr(Stream, "add", add)


def _floor_one_low(monkeypatch: pytest.MonkeyPatch) -> None:
    def covers(self: Ring, position: Position) -> bool:
        floor = self.floor
        return floor is not None and position.epoch == floor.epoch and position.sequence >= floor.sequence - 1

    monkeypatch.setattr(Ring, "covers", covers)


def _epochs_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def covers(self: Ring, position: Position) -> bool:
        return self.floor is not None and position.sequence >= self.floor.sequence

    monkeypatch.setattr(Ring, "covers", covers)


@pytest.mark.parametrize(
    "bug",
    [_ring_one_early, _ring_one_late, _added_before_what_waits_is_sent, _floor_one_low, _epochs_ignored],
    ids=lambda bug: bug.__name__.lstrip("_"),
)
def test_the_check_finds_what_is_wrong(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        _run_grid([0], [1], [3, 0], [0, 5, 2, 4])


def test_the_check_finds_nothing_where_nothing_is_wrong() -> None:
    _run_grid([0, 5, 2, 4])
