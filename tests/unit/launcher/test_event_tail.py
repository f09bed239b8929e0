"""Following events: what is asked for after each kind of end, and what a person is told."""

from collections.abc import AsyncIterator, Sequence
from typing import Self

import pytest

from bas.events.v2 import events_pb2 as events
from bas.events.v2 import events_service_pb2 as service
from bas.events.v2.events_pb2 import Gap, LoggedEvent
from bas.events.v2.events_service_pb2 import StreamEnd, SubscribeEventsRequest, SubscribeEventsResponse
from chassis.clock import FakeClock
from chassis.errors import ApiError, Code, unavailable
from chassis.interceptors.client import Metadata
from launcher.event_tail import Tail

Part = SubscribeEventsResponse | ApiError
AWAY = unavailable("AWAY", "Nobody is there.", retry_after=3.0)


class Jumps(FakeClock):
    """Sleeping takes no time; `slept` is for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Calls:
    """Each call gives the next of the scripts; the last one ends all with an error that is final."""

    def __init__(self, *scripts: Sequence[Part]) -> None:
        self._scripts = [*scripts, [ApiError(Code.PERMISSION_DENIED, "OVER", "The script is over.")]]
        self.cursors: list[str] = []

    def __call__(self, request: bytes, metadata: Metadata = (), first: float = 10.0) -> "Call":
        self.cursors.append(SubscribeEventsRequest.FromString(request).cursor)
        return Call(self._scripts[len(self.cursors) - 1])


class Call:
    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = self._given(parts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    def cancel(self) -> None:
        return

    @staticmethod
    async def _given(parts: Sequence[Part]) -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, ApiError):
                raise part
            yield part.SerializeToString()


def event(number: int) -> SubscribeEventsResponse:
    return SubscribeEventsResponse(event=LoggedEvent(cursor=f"c{number}"))


def end(reason: service.EndReason.ValueType, cursor: str, seconds: int = 0) -> SubscribeEventsResponse:
    ended = StreamEnd(reason=reason, cursor=cursor)
    ended.retry_after.seconds = seconds
    return SubscribeEventsResponse(end=ended)


class Followed:
    def __init__(self, *scripts: Sequence[Part], cursor: str = "") -> None:
        self.calls, self.clock, self.said, self.got = Calls(*scripts), Jumps(), list[str](), list[str]()
        asked, random = SubscribeEventsRequest(cursor=cursor), _half
        self.tail = Tail(asked, self.calls, lambda: (), clock=self.clock, random=random, say=self.said.append)

    async def run(self) -> ApiError:
        """Its end, which is always an error."""
        try:
            async for logged in self.tail:
                self.got.append(logged.cursor)
                self.tail.cursor = logged.cursor
        except ApiError as error:
            return error
        raise AssertionError("it ended")


def _half() -> float:
    return 0.5


async def test_it_goes_on_after_the_last_event_that_was_taken() -> None:
    followed = Followed([event(1), event(2), AWAY], [event(3)], cursor="c0")
    assert (await followed.run()).reason == "OVER"
    assert followed.got == ["c1", "c2", "c3"]
    assert followed.calls.cursors == ["c0", "c2", "c3"]
    assert followed.said == ["connection lost (Nobody is there); trying again", "connected again"]
    assert followed.clock.slept[0] == 3.0


async def test_a_heartbeat_moves_on() -> None:
    beat = SubscribeEventsResponse(heartbeat=service.Heartbeat(cursor="c9"))
    silent = SubscribeEventsResponse(heartbeat=service.Heartbeat())
    followed = Followed([beat, silent])
    await followed.run()
    assert followed.calls.cursors == ["", "c9"]
    assert followed.said == []


async def test_a_gap_is_told_and_passed() -> None:
    gap = Gap(reason=events.GAP_REASON_TOO_OLD, first_cursor="c5", missing_count=4, cursor="c9")
    unknown = Gap(reason=events.GAP_REASON_EPOCH_CHANGED, first_cursor="d0", cursor="d7")
    followed = Followed([SubscribeEventsResponse(gap=gap)], [SubscribeEventsResponse(gap=unknown)])
    await followed.run()
    assert followed.calls.cursors == ["", "c9", "d7"]
    assert followed.said == [
        "gap: 4 events are missing here (too old); the oldest to be had are after --cursor c5",
        "gap: events may be missing here (epoch changed); the oldest to be had are after --cursor d0",
    ]


async def test_an_end_in_order_is_waited_for_as_told() -> None:
    followed = Followed([end(service.END_REASON_DRAINING, "c4", 2)], [event(5)])
    await followed.run()
    assert followed.calls.cursors == ["", "c4", "c5"]
    assert followed.clock.slept[0] == 2.0
    assert followed.said == ["connection lost (draining); trying again", "connected again"]


async def test_waits_grow_and_an_outage_is_told_once() -> None:
    away = unavailable("AWAY", "Nobody is there.", retry_after=0.0)
    followed = Followed([event(1)], *[[away]] * 9)
    await followed.run()
    assert len(followed.said) == 1
    assert followed.clock.slept[1:] == sorted(followed.clock.slept[1:])
    assert max(followed.clock.slept) <= 5.0


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([AWAY], Code.UNAVAILABLE),  # it was never there
        ([event(1), ApiError(Code.INVALID_ARGUMENT, "CURSOR", "No cursor.")], Code.INVALID_ARGUMENT),
        ([end(service.END_REASON_SESSION_REVOKED, "c1")], Code.UNAUTHENTICATED),
    ],
)
async def test_what_does_not_change_is_raised(parts: Sequence[Part], code: Code) -> None:
    followed = Followed(parts)
    assert (await followed.run()).code is code
    assert len(followed.calls.cursors) == 1


async def test_a_reason_of_a_newer_release() -> None:
    followed = Followed([SubscribeEventsResponse(gap=Gap(reason=77, cursor="c1"))])  # type: ignore[arg-type]  # open enum
    await followed.run()
    assert "(77)" in followed.said[0]
