"""The hub: one stream upstream for all, the slow, heartbeats, credentials, limits, the end."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from bas.events.v2.events_pb2 import LoggedEvent
from bas.events.v2.events_service_pb2 import (
    END_REASON_OVERLOADED,
    Heartbeat,
    StreamEnd,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from chassis.api.cursors import Cursors, Position
from chassis.context import Caller
from chassis.errors import ApiError, Code, unauthenticated, unavailable
from gateway.sse.hub import canonical
from gateway.sse.port import Credential
from tests.support.sse import Dispatched
from tests.unit.gateway.sse.listening import Browser, Listening

READ = frozenset({"events:read"})


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    made = Listening(stream_buffer=16384, max_streams=5, tenant_streams=4)
    yield made
    await made.hub.close()


def reason(event: Dispatched) -> str:
    return str(json.loads(event.data)["reason"])


def events_of(browser: Browser) -> list[str]:
    """The positions of what came, gaps and ends by name."""
    return [each.last_event_id.split(".")[1] if "." in each.name else each.name for each in browser.events]


async def test_one_stream_for_all_who_ask_for_the_same(listening: Listening) -> None:
    browsers = [await listening.join(types=types) for types in (["a.*", "b"], ["b", "a.*", "b"])]
    assert (listening.events.opened, listening.hub.followed) == (1, 1)
    other = await listening.join(types=["c"])
    foreign = await listening.join(tenant="globex")
    assert (listening.events.opened, listening.hub.followed) == (3, 3)
    listening.events.publish(type_="a.x")
    await listening.clock.advance(0)
    assert [each.names() for each in (*browsers, other, foreign)] == [["a.x"], ["a.x"], [], []]


def test_filters_that_are_the_same_are_followed_once() -> None:
    one = SubscribeEventsRequest(types=["b", "a", "b"], subject="s", cursor="x")
    assert canonical(one) == canonical(SubscribeEventsRequest(types=["a", "b"], subject="s"))
    assert canonical(one) != canonical(SubscribeEventsRequest(types=["a", "b"], source="s"))


async def test_what_waits_goes_out_in_one_write(listening: Listening) -> None:
    browser = await listening.join()
    before = browser.writes
    for _ in range(10):
        listening.events.publish()
    await listening.clock.advance(0)
    assert len(browser.events) == 10
    assert browser.writes - before <= 2


async def test_an_upstream_that_restarts_is_not_noticed(listening: Listening) -> None:
    browser = await listening.join()
    for _ in range(3):
        listening.events.publish()
        await listening.clock.advance(0)
        listening.events.restart()
        listening.events.publish()
        await listening.clock.advance(5)
    assert events_of(browser) == ["1", "2", "3", "4", "5", "6"]
    assert browser.is_open()


async def test_browsers_stay_while_the_events_service_is_away(listening: Listening) -> None:
    browser = await listening.join()
    listening.events.refusal = unavailable("EVENTS_UNAVAILABLE", "Away.")
    listening.events.restart()
    await listening.clock.advance(60)
    assert len(browser.parser.comments) >= 4
    listening.events.publish()
    listening.events.refusal = None
    await listening.clock.advance(5)
    assert events_of(browser) == ["1"]


async def test_a_credential_of_the_gateway_is_renewed_without_a_break(listening: Listening) -> None:
    browser = await listening.join()
    for _ in range(4):
        listening.events.publish()
        await listening.clock.advance(1800)
    assert events_of(browser) == ["1", "2", "3", "4"]
    assert listening.events.opened >= 3


async def test_an_upstream_that_ends_in_order_is_opened_again_when_it_says(listening: Listening) -> None:
    browser = await listening.join()
    (stream,) = listening.events.streams
    end = StreamEnd(reason=END_REASON_OVERLOADED)
    end.retry_after.seconds = 10
    stream.say_goodbye(end)
    listening.events.publish()
    await listening.clock.advance(4)
    assert listening.events.opened == 1
    await listening.clock.advance(20)
    assert events_of(browser) == ["1"]


async def test_a_stream_without_listeners_is_let_go_after_a_while(listening: Listening) -> None:
    browser = await listening.join()
    listening.hub.lost(listening.connections[browser])
    await listening.clock.advance(5)
    assert listening.hub.followed == 1
    await listening.join(listening.events.cursor())
    assert listening.events.opened == 1
    await listening.clock.advance(60)
    assert listening.hub.followed == 1
    for connection in tuple(listening.hub._streams):
        listening.hub.lost(connection)
    await listening.clock.advance(15)
    assert (listening.hub.followed, len(listening.events.streams)) == (0, 0)
    assert listening.value("bas_gateway_stream_upstreams") == 0


async def test_a_gap_upstream_is_told_to_all(listening: Listening) -> None:
    listening.events.publish()
    browsers = [await listening.join(), await listening.join()]
    listening.events.roll_back("e2")
    await listening.clock.advance(1)
    listening.events.publish()
    await listening.clock.advance(1)
    for browser in browsers:
        assert events_of(browser) == ["gap", "1"]
        assert reason(browser.events[0]) == "GAP_REASON_EPOCH_CHANGED"
    assert listening.value("bas_gateway_stream_gaps_total") == 2


async def test_an_epoch_that_goes_on_where_the_old_one_ended_is_no_gap(listening: Listening) -> None:
    for _ in range(3):
        listening.events.publish()
    browser = await listening.join()
    await listening.clock.advance(0)
    (followed,) = listening.hub._followed.values()
    here = followed.stream
    assert here.position == Position("e1", 3)
    there = LoggedEvent(cursor=listening.events.cursors.write("acme", Position("e2", 4)))
    here.take(SubscribeEventsResponse(event=there))
    assert here.ring.covers(Position("e2", 4))
    assert not here.ring.covers(Position("e1", 3)), "whether that is a position of this log is not for the ring to say"
    here.take(
        SubscribeEventsResponse(heartbeat=Heartbeat(cursor=listening.events.cursors.write("acme", Position("e3", 4))))
    )
    assert here.position == Position("e3", 4)
    await listening.clock.advance(0)
    assert len(events_of(browser)) == 1
    here.take(
        SubscribeEventsResponse(heartbeat=Heartbeat(cursor=listening.events.cursors.write("acme", Position("e4", 2))))
    )
    await listening.clock.advance(0)
    assert [each.name for each in browser.events][1:] == ["gap"]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (Position("e0", 1), "GAP_REASON_EPOCH_CHANGED"),
        (Position("e1", 0), "GAP_REASON_TOO_OLD"),
        (Position("e1", 99), "GAP_REASON_AHEAD_OF_LOG"),
    ],
)
async def test_a_cursor_that_cannot_be_honoured_begins_with_a_gap(
    listening: Listening, position: Position, expected: str
) -> None:
    for _ in range(4):
        listening.events.publish()
    listening.events.forget(2)
    browser = await listening.join(listening.events.cursors.write("acme", position))
    listening.events.publish()
    await listening.clock.advance(0)
    assert events_of(browser) == ["gap", "5"]
    told = json.loads(browser.events[0].data)
    assert told["reason"] == expected
    assert (told["firstCursor"], told["cursor"]) == (
        listening.events.cursors.write("acme", Position("e1", 2)),
        listening.events.cursors.write("acme", Position("e1", 4)),
    )


async def test_a_cursor_of_another_tenant_is_refused_even_where_the_ring_would_do(listening: Listening) -> None:
    await listening.join()
    for _ in range(3):
        listening.events.publish()
    await listening.clock.advance(0)
    for foreign in (
        listening.events.cursors.write("globex", Position("e1", 2)),
        Cursors(b"x" * 32).write("acme", Position("e1", 2)),
    ):
        with pytest.raises(ApiError) as refused:
            await listening.join(foreign)
        assert refused.value.code is Code.INVALID_ARGUMENT
    assert len(listening.hub) == 1


async def test_those_who_come_back_soon_are_served_from_the_ring(listening: Listening) -> None:
    first = await listening.join()
    for _ in range(3):
        listening.events.publish()
    await listening.clock.advance(0)
    again = await listening.join(first.events[0].last_event_id)
    assert (events_of(again), listening.events.listed) == (["2", "3"], 0)
    assert listening.value("bas_gateway_streams_resumed_total", source="ring") == 1


async def test_many_who_ask_for_the_same_past_read_it_once(listening: Listening) -> None:
    for _ in range(3):
        listening.events.publish()
    cursor = listening.events.cursors.write("acme", Position("e1", 1))
    browsers = await asyncio.gather(*(listening.join(cursor) for _ in range(4)))
    assert [events_of(each) for each in browsers] == [["2", "3"]] * 4
    assert listening.events.listed == 1


async def test_a_slow_reader_is_cut_and_told_from_where_to_go_on(listening: Listening) -> None:
    slow, quick = await listening.join(browser=Browser(reads=False)), await listening.join()
    for _ in range(30):
        listening.events.publish(data="x" * 2000)
        await listening.clock.advance(0.1)
    assert not slow.is_open()
    assert len(quick.events) == 30
    await listening.clock.advance(6)
    assert slow.aborted
    slow.read()
    assert slow.names()[-1] == "end"
    assert reason(slow.events[-1]) == "END_REASON_SLOW_CONSUMER"
    again = await listening.join(slow.parser.last_event_id)
    both = [*slow.events[:-1], *again.events]
    assert [each.last_event_id for each in both] == [each.last_event_id for each in quick.events]
    assert listening.value("bas_gateway_stream_slow_total", policy="disconnect") == 1


async def test_memory_for_the_stalled_has_a_bound(listening: Listening) -> None:
    stalled = [await listening.join(browser=Browser(reads=False), conflates=True) for _ in range(3)]
    for number in range(200):
        listening.events.publish(data="x" * 2000, subject=f"devices/{number}")
        await listening.clock.advance(0.1)
    for browser in stalled:
        kept = listening.connections[browser].conflation
        assert kept is not None
        assert len(browser.waiting) + len(kept.text()) < 3 * 16384


async def test_conflation_keeps_the_newest_of_each_subject_and_says_what_it_skipped(listening: Listening) -> None:
    slow = await listening.join(browser=Browser(reads=False), conflates=True)
    for number in range(30):
        listening.events.publish(data="x" * 2000, subject=f"devices/{number % 2}")
        await listening.clock.advance(0.1)
    assert slow.is_open()
    slow.read()
    had = len(slow.events)
    await listening.clock.advance(1)
    slow.reads = True
    slow.read()
    gap, *newest = slow.events[had:]
    assert gap.name == "gap"
    assert json.loads(gap.data)["missingCount"] == str(30 - had - 2)
    assert gap.last_event_id == slow.events[had - 1].last_event_id
    assert [each.last_event_id.split(".")[1] for each in newest] == ["29", "30"]
    listening.events.publish()
    await listening.clock.advance(0.1)
    assert events_of(slow)[-1] == "31"


async def test_silence_is_never_longer_than_the_heartbeat(listening: Listening) -> None:
    browser = await listening.join()
    for _ in range(20):
        before = browser.writes
        await listening.clock.advance(15)
        assert browser.writes > before
    assert browser.writes < 45
    assert browser.events == []


async def test_a_heartbeat_names_the_position_that_no_event_did(listening: Listening) -> None:
    browser = await listening.join(types=["rare"])
    for _ in range(5):
        listening.events.publish()
    await listening.clock.advance(1)
    (stream,) = listening.events.streams
    stream.beat()
    await listening.clock.advance(16)
    assert browser.parser.last_event_id == listening.events.cursor()
    assert browser.events == []


async def test_a_token_ends_its_stream(listening: Listening) -> None:
    now = listening.clock.now().timestamp()
    ends, stays = await listening.join(expires=now + 30), await listening.join(expires=now + 3000)
    await listening.clock.advance(29)
    assert ends.is_open()
    await listening.clock.advance(2)
    assert ends.names() == ["warning", "end"]
    assert {reason(each) for each in ends.events} == {"END_REASON_CREDENTIAL_EXPIRED"}
    assert (ends.closing, stays.closing) == (True, False)


class Renewing:
    """A session as the gateway asks about it."""

    def __init__(self, listening: Listening, session: str = "s1") -> None:
        self.listening = listening
        self.session = session
        self.asked = 0
        self.problem: ApiError | None = None
        self.scopes = READ

    async def __call__(self, seconds: float) -> Credential:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        now = self.listening.clock.now().timestamp()
        return Credential(Caller("acme", "ada", self.scopes, now + 60, self.session), "Bearer acme", "bas_x")

    async def join(self) -> Browser:
        now = self.listening.clock.now().timestamp()
        return await self.listening.join(expires=now + 60, session=self.session, renew=self)


async def test_a_session_that_lives_goes_on(listening: Listening) -> None:
    session = Renewing(listening)
    browser = await session.join()
    await listening.clock.advance(600)
    assert browser.is_open()
    assert 9 < session.asked < 25


@pytest.mark.parametrize("scopes", [READ, frozenset({"devices:read"})])
async def test_a_session_that_ended_or_lost_its_scope_ends_its_stream(
    listening: Listening, scopes: frozenset[str]
) -> None:
    session = Renewing(listening)
    browser = await session.join()
    session.scopes = scopes
    if scopes == READ:
        session.problem = unauthenticated("SESSION_INVALID", "Over.")
    await listening.clock.advance(60)
    assert browser.names() == ["warning", "end"]


async def test_a_session_that_nobody_knows_of_ends_with_its_token(listening: Listening) -> None:
    session = Renewing(listening)
    browser = await session.join()
    session.problem = unavailable("SESSIONS_UNAVAILABLE", "Away.")
    await listening.clock.advance(58)
    assert browser.is_open()
    assert session.asked > 2
    await listening.clock.advance(5)
    assert browser.names() == ["warning", "end"]


@pytest.mark.parametrize("what", ["session.revoked", "session.expired"])
async def test_a_revoked_session_ends_its_stream_at_once(listening: Listening, what: str) -> None:
    ends, other = await Renewing(listening, "s1").join(), await Renewing(listening, "s2").join()
    await listening.clock.advance(1)
    listening.events.publish(type_=what, subject="sessions/s1", source="/somebody/else")
    await listening.clock.advance(1)
    assert ends.is_open()
    listening.events.publish(type_=what, subject="sessions/s1", source="/bas/sessions")
    await listening.clock.advance(0)
    assert not ends.is_open()
    assert other.is_open()
    assert ends.names()[-2:] == ["warning", "end"]
    listening.hub.lost(listening.connections[other])
    await listening.clock.advance(20)
    assert listening.hub.followed == 0


async def test_a_session_revoked_while_it_was_let_in_ends_at_once(listening: Listening) -> None:
    await Renewing(listening, "s2").join()
    await listening.clock.advance(1)
    listening.events.publish(type_="session.revoked", subject="sessions/s1", source="/bas/sessions")
    await listening.clock.advance(0)
    late = await Renewing(listening, "s1").join()
    assert late.names() == ["warning", "end"]
    assert len(listening.hub) == 1


async def test_a_session_is_asked_about_once_its_events_are_followed(listening: Listening) -> None:
    session = Renewing(listening)
    session.problem = unauthenticated("SESSION_INVALID", "Revoked before anybody listened.")
    browser = await session.join()
    await listening.clock.advance(1)
    assert browser.names() == ["warning", "end"]


async def test_an_upstream_that_went_silent_is_opened_anew(listening: Listening) -> None:
    browser = await listening.join()
    await listening.clock.advance(70)
    assert listening.events.opened == 2
    listening.events.publish()
    await listening.clock.advance(0)
    assert events_of(browser) == ["1"]


async def test_sessions_are_asked_about_when_a_revocation_may_have_been_missed(listening: Listening) -> None:
    session = Renewing(listening)
    browser = await session.join()
    await listening.clock.advance(1)
    session.problem = unauthenticated("SESSION_INVALID", "Over.")
    listening.events.roll_back("e2")
    await listening.clock.advance(1)
    assert browser.names()[-1] == "end"


async def test_as_many_as_may_be(listening: Listening) -> None:
    browsers = [await listening.join() for _ in range(4)]
    assert listening.hub.full("acme")
    assert not listening.hub.full("globex")
    browsers.append(await listening.join(tenant="globex"))
    assert listening.hub.full("initech")
    assert listening.value("bas_gateway_streams") == 5
    listening.hub.lost(listening.connections[browsers[4]])
    listening.hub.lost(listening.connections[browsers[4]])
    assert not listening.hub.full("initech")


async def test_an_upstream_that_refuses_is_told_and_tried_again(listening: Listening) -> None:
    listening.events.refusal = ApiError(Code.RESOURCE_EXHAUSTED, "STREAMS_EXHAUSTED", "Full.")
    with pytest.raises(ApiError) as refused:
        await listening.join()
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    listening.events.refusal = None
    await listening.clock.advance(10)
    await listening.join()
    assert len(listening.hub) == 1


async def test_a_filter_that_is_none_is_refused_and_forgotten(listening: Listening) -> None:
    listening.events.refusal = ApiError(Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", "No.")
    with pytest.raises(ApiError) as refused:
        await listening.join(types=["*a"])
    assert refused.value.code is Code.INVALID_ARGUMENT
    await listening.clock.advance(0)
    assert listening.hub.followed == 0


async def test_draining_ends_all_spread_over_the_time() -> None:
    listening = Listening()
    browsers = [await listening.join() for _ in range(100)]
    draining = asyncio.create_task(listening.hub.drain(10))
    counts = []
    for _ in range(10):
        await listening.clock.advance(1)
        counts.append(sum(each.closing for each in browsers))
    async with asyncio.timeout(30):
        await draining
    assert counts[0] < 30
    assert sorted(counts) == counts
    assert counts[-1] == 100
    assert {reason(each.events[-1]) for each in browsers} == {"END_REASON_DRAINING"}
    assert all(each.parser.retry for each in browsers)
    assert listening.hub.full("acme")
    assert len(listening.events.streams) == 0


async def test_one_who_is_still_catching_up_is_neither_forgotten_nor_cut_short(listening: Listening) -> None:
    for _ in range(40):
        listening.events.publish(data="x" * 5000)
    browser = Browser(reads=False)
    cursor = listening.events.cursors.write("acme", Position("e1", 0))
    joining = asyncio.create_task(listening.join(cursor, browser=browser))
    await listening.clock.advance(5)
    assert not joining.done()
    assert 0 < len(browser.waiting) < 150_000
    for _ in range(8):
        browser.read()
        await listening.clock.advance(1)
    async with asyncio.timeout(30):
        await joining
    assert len(browser.events) == 40


async def test_one_who_stalls_while_catching_up_is_cut(listening: Listening) -> None:
    for _ in range(40):
        listening.events.publish(data="x" * 5000)
    browser = Browser(reads=False)
    cursor = listening.events.cursors.write("acme", Position("e1", 0))
    joining = asyncio.create_task(listening.join(cursor, browser=browser))
    await listening.clock.advance(45)
    async with asyncio.timeout(30):
        await joining
    assert not browser.is_open()
    browser.read()
    assert reason(browser.events[-1]) == "END_REASON_SLOW_CONSUMER"
