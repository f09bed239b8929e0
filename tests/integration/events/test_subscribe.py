"""Streams over the network: real gRPC, a real log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from bas.events.v2.events_pb2 import GAP_REASON_EPOCH_CHANGED
from bas.events.v2.events_service_pb2 import (
    END_REASON_DRAINING,
    END_REASON_SESSION_REVOKED,
    END_REASON_SLOW_CONSUMER,
    SLOW_CONSUMER_POLICY_CONFLATE,
    SubscribeEventsRequest,
)
from bas.events.v2.events_service_pb2_grpc import EventServiceStub
from chassis.config import Seconds
from chassis.interceptors.status import error_of
from services.events import subscription
from services.events.servicer import EventServicer
from tests.integration.events.streaming import BOUND, Serving, Stream, event, serving
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


@pytest.fixture
async def events(valkey: Valkey) -> AsyncIterator[Serving]:
    async with serving(valkey.url) as made:
        yield made


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is cut off for not reading the end in time: for tests that read it."""
    monkeypatch.setattr(subscription, "_CUT", 60.0)
    monkeypatch.setattr(subscription, "_CUT_REVOKED", 60.0)


async def test_a_stream_brings_what_is_published_and_resumes_where_it_was_left(events: Serving) -> None:
    first = events.subscribe(types=["device.*"])
    assert (await first.next()).HasField("heartbeat")
    for number in range(6):
        await events.publish(event(number, "device.made" if number % 2 else "user.made"))
    await events.publish(event("other", "device.made"), who=events.bearer("globex"))
    assert [await first.event() for _ in range(3)] == ["1", "3", "5"]
    first.call.cancel()
    again = events.subscribe(types=["device.*"], cursor=first.messages[1].event.cursor)
    assert [await again.event() for _ in range(2)] == ["3", "5"]
    everything = events.subscribe(cursor=first.messages[1].event.cursor)
    assert [await everything.event() for _ in range(4)] == ["2", "3", "4", "5"]
    assert everything.messages[0].event.event.sequence == "3"


async def test_a_cursor_that_is_none_of_the_tenants_is_refused(events: Serving) -> None:
    cursor = (await events.publish(event(1))).cursor
    for stream in (
        events.subscribe(cursor="garbage"),
        events.subscribe(cursor=cursor, who=events.bearer("globex")),
        events.subscribe(types=["a*b"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.next()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_of(refused.value).violations[0].field in {"cursor", "types[0]"}


async def test_nobody_but_a_service_publishes_as_the_platform(events: Serving) -> None:
    forged = event("f", "session.revoked", "sessions/s1", "/bas/sessions")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events.publish(event("fine"), forged)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    error = error_of(refused.value)
    assert error.reason == "SOURCE_RESERVED"
    assert [violation.field for violation in error.violations] == ["events[1].source"]


async def test_a_revoked_session_ends_its_streams(events: Serving, unhurried: None) -> None:
    theirs = events.subscribe(who=events.bearer(session_id="s1"))
    other = events.subscribe(who=events.bearer(session_id="s2"))
    await theirs.next()
    await other.next()
    platform = events.bearer(subject="service:sessions")
    await events.publish(event("r", "session.revoked", "sessions/s1", "/bas/sessions"), who=platform)
    assert (await theirs.until("warning")).warning.reason == END_REASON_SESSION_REVOKED
    assert (await theirs.next()).end.reason == END_REASON_SESSION_REVOKED
    await theirs.ended()
    assert await other.event() == "r"


async def test_who_leaves_is_forgotten(events: Serving) -> None:
    streams = [events.subscribe() for _ in range(20)]
    for stream in streams:
        await stream.next()
    fanout = _fanout(events)
    assert fanout.open == 20
    for stream in streams:
        stream.call.cancel()
    await eventually(lambda: fanout.open == 0, "all streams gone", within=BOUND)


async def test_readers_that_stop_are_sent_away_and_harm_nobody(valkey: Valkey) -> None:
    async with serving(valkey.url, queue_events=16) as events, _channels(events, 5) as stubs:
        stalled = [Stream(stub.SubscribeEvents(SubscribeEventsRequest(), metadata=events.bearer())) for stub in stubs]
        conflating = Stream(
            stubs[0].SubscribeEvents(
                SubscribeEventsRequest(slow_consumer_policy=SLOW_CONSUMER_POLICY_CONFLATE),
                metadata=events.bearer(),
            )
        )
        reading = [events.subscribe() for _ in range(3)]
        for stream in (*stalled, conflating, *reading):
            await stream.next()
        total = 160
        took = [asyncio.create_task(_ids(events, stream, total)) for stream in reading]
        for number in range(total):
            await events.publish(event(number, subject=f"d{number % 4}", size=32 * 1024))
        for task in took:
            assert await asyncio.wait_for(task, BOUND) == [str(number) for number in range(total)]
        fanout = _fanout(events)
        await eventually(lambda: fanout.open == 4, "the stalled ones cut off", within=BOUND)
        for stream in stalled:
            await _read_out(stream)
        kept: list[str] = []
        missing = 0
        while not kept or kept[-1] != str(total - 1):
            message = await conflating.next()
            missing += message.gap.missing_count
            if message.HasField("event"):
                kept.append(message.event.event.id)
        assert kept[-4:] == [str(number) for number in range(total - 4, total)]
        assert missing > total / 2
        assert len(kept) + missing == total


async def test_one_that_was_too_slow_goes_on_where_it_was_told_to(valkey: Valkey, unhurried: None) -> None:
    async with serving(valkey.url, queue_events=16) as events, _channels(events, 1) as (stub,):
        slow = Stream(stub.SubscribeEvents(SubscribeEventsRequest(), metadata=events.bearer()))
        await slow.next()
        for number in range(100):
            await events.publish(event(number, size=32 * 1024))
        fanout = _fanout(events)
        await eventually(lambda: any(one._end for one in fanout._open), "the stream told to end", within=BOUND)
        got: list[str] = []
        while True:
            message = await slow.next()
            if message.HasField("end"):
                break
            if message.HasField("event"):
                got.append(message.event.event.id)
        assert message.end.reason == END_REASON_SLOW_CONSUMER
        await slow.ended()
        rest = events.subscribe(cursor=message.end.cursor)
        got += [await rest.event() for _ in range(100 - len(got))]
        assert got == [str(number) for number in range(100)]


async def test_stopping_tells_every_stream_to_come_back(events: Serving, unhurried: None) -> None:
    streams = [events.subscribe() for _ in range(10)]
    for stream in streams:
        await stream.next()
    stopping = asyncio.create_task(events.services.stop())
    waits = set()
    for stream in streams:
        end = (await stream.until("end")).end
        assert end.reason == END_REASON_DRAINING
        assert end.cursor
        waits.add(end.retry_after.ToMilliseconds())
        await stream.ended()
    assert len(waits) > 5
    assert max(waits) <= 5000
    await asyncio.wait_for(stopping, BOUND)


async def test_streams_outlive_the_log_and_are_told_what_that_cost(own_valkey: Valkey) -> None:
    async with serving(own_valkey.url, heartbeat=Seconds(0.5)) as events:
        stream = events.subscribe()
        await stream.next()
        await events.publish(event("before"))
        assert await stream.event() == "before"
        await own_valkey.kill()
        for _ in range(3):
            assert (await stream.next()).HasField("heartbeat")
        newcomer = events.subscribe()
        assert (await newcomer.next()).HasField("heartbeat")
        await own_valkey.start()
        gap = (await stream.until("gap")).gap
        assert gap.reason == GAP_REASON_EPOCH_CHANGED
        await _published(events, "after")
        assert await stream.event() == "after"
        assert (await newcomer.until("event")).event.event.id == "after"
        before = next(each for each in stream.messages if each.HasField("event"))  # heartbeats may be anywhere
        stale = events.subscribe(cursor=before.event.cursor)
        assert (await stale.next()).gap.reason == GAP_REASON_EPOCH_CHANGED


async def _published(events: Serving, name: str) -> None:
    """Published, once the log's breaker lets it through."""

    async def attempt() -> bool:
        try:
            await events.publish(event(name))
        except grpc.aio.AioRpcError as away:
            if away.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(attempt, "the log back", within=BOUND)


async def _ids(events: Serving, stream: Stream, count: int) -> list[str]:
    """The next events. On a machine without time for it even this reader is too slow, and goes on where it is told to."""
    found: list[str] = []
    while len(found) < count:
        message = await stream.next()
        if message.HasField("event"):
            found.append(message.event.event.id)
        elif message.HasField("end"):
            stream = events.subscribe(cursor=message.end.cursor)
    return found


async def _read_out(stream: Stream) -> None:
    """A stream that was cut off: what was on the way still comes, then why."""

    async def read() -> None:
        while await asyncio.wait_for(stream.call.read(), BOUND) is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as cut:
        await read()
    assert error_of(cut.value).reason == "STREAM_NOT_READ"


def _fanout(events: Serving) -> Any:
    (module,) = events.services._modules
    assert isinstance(module.servicer, EventServicer)
    return module.servicer._fanout


class _channels:  # noqa: N801 - used like a function
    """Connections of their own, which take little that nobody reads."""

    def __init__(self, events: Serving, count: int) -> None:
        options = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
        self._made = [
            grpc.aio.insecure_channel(f"127.0.0.1:{events.server.port}", options=options) for _ in range(count)
        ]

    async def __aenter__(self) -> list[Any]:
        return [EventServiceStub(channel) for channel in self._made]

    async def __aexit__(self, *_: object) -> None:
        for channel in self._made:
            await channel.close()
