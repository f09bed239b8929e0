"""Readers who come and go while events are published, and bugs at the hand-over that the judge of the soak must find."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chassis.api.cursors import Position
from gateway.sse.frames import Frame
from gateway.sse.ring import Ring
from gateway.sse.stream import Stream
from tests.integration.gateway.listeners import serving
from tests.support.browsers import Browser, all_of
from tests.support.continuity import Given, Log, Verdict, judge, position_of

READERS = 12
ROUNDS = 6


async def readers_come_and_go() -> Verdict:
    """Of a gateway of this process over an events service in memory."""
    async with serving(stream_retry=0.1) as gateway:
        browsers = [Browser([gateway.url], "acme", hurry=0.1) for _ in range(READERS)]
        try:
            gateway.events.publish()
            for browser in browsers:
                browser.open()
            await all_of(browsers, lambda each: each.listens, "all listen")
            for number in range(ROUNDS):
                for browser in browsers[number % 3 :: 3]:
                    browser.cut()
                for _ in range(20):
                    gateway.events.publish()
                    await asyncio.sleep(0.001)
                await all_of(browsers, lambda each: each.connected, "all are back")
            gateway.events.publish()
            last = gateway.events.logs["acme"].end.sequence
            await all_of(
                browsers, lambda each: each.position is not None and each.position.sequence >= last, "the last"
            )
            log = Log()
            for logged in gateway.events.logs["acme"].events:
                log.add(Given(position_of(logged.cursor), logged.event.id, logged.event.type))
            return judge(log, [browser.reading for browser in browsers])
        finally:
            await asyncio.gather(*(browser.close() for browser in browsers))


async def test_nothing_is_lost_or_doubled() -> None:
    verdict = await readers_come_and_go()
    assert verdict.faults == 0, verdict
    assert verdict.delivered == READERS * (ROUNDS * 20 + 1)


def _from(shift: int) -> Callable[[Any], Any]:
    def after(real: Any) -> Any:
        def shifted(self: Ring, position: Position, most_bytes: int) -> tuple[list[Frame], bool]:
            found: tuple[list[Frame], bool] = real(
                self, replace(position, sequence=position.sequence + shift), most_bytes
            )
            return found

        return shifted

    return after


def _drops(real: Any) -> Any:
    def write(self: Stream, frames: list[Frame]) -> None:
        left = [frame for frame in frames if frame.position.sequence % 50]
        if left:
            real(self, left)

    return write


def _doubles(real: Any) -> Any:
    def write(self: Stream, frames: list[Frame]) -> None:
        real(self, [*frames, frames[-1]] if frames[-1].position.sequence % 50 == 0 else frames)

    return write


@pytest.mark.parametrize(
    ("where", "name", "bug", "fault"),
    [
        pytest.param(Ring, "after", _from(1), "lost", id="one-too-far-at-the-hand-over"),
        pytest.param(Ring, "after", _from(-1), "duplicated", id="one-too-early-at-the-hand-over"),
        pytest.param(Stream, "_write", _drops, "lost", id="an-event-dropped"),
        pytest.param(Stream, "_write", _doubles, "duplicated", id="an-event-doubled"),
    ],
)
async def test_the_judge_finds(
    where: type, name: str, bug: Callable[[Any], Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, bug(getattr(where, name)))
    verdict = await readers_come_and_go()
    assert getattr(verdict, fault) > 0, verdict
