"""What one stream says, from its first message to its last."""

import pytest

from bas.events.v2.events_pb2 import (
    GAP_REASON_AHEAD_OF_LOG,
    GAP_REASON_CONFLATED,
    GAP_REASON_EPOCH_CHANGED,
    GAP_REASON_TOO_OLD,
)
from bas.events.v2.events_service_pb2 import (
    END_REASON_CREDENTIAL_EXPIRED,
    END_REASON_DRAINING,
    END_REASON_SESSION_REVOKED,
    END_REASON_SLOW_CONSUMER,
)
from chassis.api.cursors import Position
from chassis.config import Seconds
from chassis.errors import ApiError, Code
from services.events.filters import EventFilter
from services.events.subscription import Wish
from tests.unit.events.rig import CURSORS, Rig, caller, rig, settle, wanting

ALL = EventFilter()
ELSEWHERE = "beta"
"""A tenant of another shard than `acme`."""


def position(cursor: str, tenant: str = "acme") -> Position:
    return CURSORS.read(tenant, cursor)


async def test_without_a_cursor_it_begins_at_once_with_the_present_and_goes_on() -> None:
    async with rig() as made:
        await made.publish("old")
        reader = await made.listening()
        assert reader.kinds() == ["heartbeat"]
        assert position(reader.last.heartbeat.cursor) == await made.position()
        await made.publish(1, 2)
        await made.publish("other", tenant="globex")
        assert reader.ids() == ["1", "2"]
        assert position(reader.last.event.cursor) == await made.position()
        assert reader.last.event.event.tenantid == "acme"


async def test_with_a_cursor_it_begins_with_what_came_after() -> None:
    async with rig(queue_events=16) as made:
        await made.publish(*range(300))
        reader = made.subscribe(Wish(ALL, Position((await made.position()).epoch, 20)))
        await settle(600)
        await made.publish("live")
        assert reader.ids() == [*map(str, range(20, 300)), "live"]
        assert set(reader.kinds()) == {"event"}


async def test_memory_serves_who_comes_back_without_a_look_at_the_log() -> None:
    async with rig() as made:
        first = await made.listening()
        await made.publish(*range(5))
        await first.close()
        made.memory.away = True
        again = made.subscribe(cursor=first.messages[2].event.cursor)
        await settle()
        assert again.ids() == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("types", "subject", "source", "expected"),
    [
        (("device.*",), "", "", ["a", "b"]),
        (("device.online", "user.made"), "", "", ["a", "c"]),
        ((), "d1", "", ["a", "c"]),
        ((), "", "/other", ["b"]),
        (("device.*",), "d1", "/test", ["a"]),
    ],
)
async def test_only_what_is_asked_for_comes(
    types: tuple[str, ...], subject: str, source: str, expected: list[str]
) -> None:
    async with rig() as made:
        live = await made.listening(Wish(wanting(*types, subject=subject, source=source)))
        begin = position(live.last.heartbeat.cursor)
        await made.publish("a", kind="device.online", subject="d1")
        await made.publish("b", kind="device.offline", subject="d2", source="/other")
        await made.publish("c", kind="user.made", subject="d1")
        replayed = made.subscribe(Wish(wanting(*types, subject=subject, source=source), begin))
        await settle()
        assert live.ids() == replayed.ids() == expected


async def test_a_heartbeat_after_silence_tells_how_far_the_log_was_looked_through() -> None:
    async with rig(heartbeat=Seconds(15)) as made:
        reader = await made.listening(Wish(wanting("rare.*")))
        await made.publish(1, 2, 3)
        assert reader.kinds() == ["heartbeat"]
        await made.clock.advance(15)
        assert reader.kinds() == ["heartbeat"] * 2
        assert position(reader.last.heartbeat.cursor) == await made.position()
        await made.publish("x", kind="rare.one")
        await made.clock.advance(14)
        assert reader.kinds() == ["heartbeat", "heartbeat", "event"]
        await made.clock.advance(61)
        assert reader.kinds()[3:] == ["heartbeat"] * 5


async def test_no_silence_is_longer_than_said() -> None:
    async with rig(heartbeat=Seconds(1)) as made:
        reader = await made.listening()
        for count in range(2, 30):
            await made.clock.advance(1)
            assert len(reader.messages) >= count


async def test_a_cursor_that_is_too_old_begins_with_a_gap_and_the_present() -> None:
    async with rig(keep=10) as made:
        await made.publish(*range(30))
        epoch = (await made.position()).epoch
        reader = made.subscribe(Wish(ALL, Position(epoch, 19)))
        exact = made.subscribe(Wish(ALL, Position(epoch, 20)))
        await settle()
        await made.publish("live")
        assert reader.kinds() == ["gap", "event"]
        gap = reader.messages[0].gap
        assert gap.reason == GAP_REASON_TOO_OLD
        assert position(gap.first_cursor).sequence == 20
        assert position(gap.cursor).sequence == 30
        assert gap.missing_count == 11
        assert exact.ids() == [*map(str, range(20, 30)), "live"]
        assert made.sample("bas_events_gaps_total", reason="too_old") == 1


async def test_a_cursor_of_another_epoch_or_from_the_future_begins_with_a_gap() -> None:
    async with rig() as made:
        await made.publish(1, 2)
        here = await made.position()
        other = made.subscribe(Wish(ALL, Position("another", 1)))
        ahead = made.subscribe(Wish(ALL, Position(here.epoch, 3)))
        await settle()
        await made.publish("live")
        for reader, reason in ((other, GAP_REASON_EPOCH_CHANGED), (ahead, GAP_REASON_AHEAD_OF_LOG)):
            assert reader.kinds() == ["gap", "event"]
            assert reader.messages[0].gap.reason == reason
            assert position(reader.messages[0].gap.cursor) == here
            assert reader.messages[0].gap.missing_count == 0
            assert reader.ids() == ["live"]


async def test_a_log_that_was_lost_is_told_to_all_and_goes_on() -> None:
    async with rig() as made:
        readers = [await made.listening() for _ in range(3)]
        elsewhere = await made.listening(who=caller(ELSEWHERE))
        assert made.memory.shard_of("acme") != made.memory.shard_of(ELSEWHERE)
        await made.publish(1, 2)
        made.memory.lose(made.memory.shard_of("acme"))
        await made.publish(3, 4)
        for reader in readers:
            assert reader.kinds() == ["heartbeat", "event", "event", "gap", "event", "event"]
            assert reader.messages[3].gap.reason == GAP_REASON_EPOCH_CHANGED
            assert position(reader.messages[3].gap.cursor) == Position((await made.position()).epoch, 0)
            assert reader.ids() == ["1", "2", "3", "4"]
        assert elsewhere.kinds() == ["heartbeat"]


async def test_what_the_follower_missed_is_read_from_the_log() -> None:
    async with rig() as made:
        reader = await made.listening()
        shard = made.memory.shard_of("acme")
        await made.publish(1)
        await made.restart_follower(shard)
        await made.publish(2)
        made.memory.skip(shard)
        await made.publish(3)
        made.memory.restart(shard)
        await made.publish(4)
        made.memory.skip(shard, "acme")
        await made.publish(5)
        assert reader.kinds() == ["heartbeat"] + ["event"] * 5
        assert reader.ids() == ["1", "2", "3", "4", "5"]


async def test_a_reader_that_is_too_slow_is_told_where_to_go_on() -> None:
    async with rig(queue_events=8) as made:
        slow, quick = await made.listening(), await made.listening()
        slow.reads.clear()
        await made.publish(*range(30))
        await made.clock.advance(2)
        assert quick.ids() == [*map(str, range(30))]
        slow.reads.set()
        await settle()
        assert slow.has_ended()
        assert slow.kinds()[-1] == "end"
        assert slow.last.end.reason == END_REASON_SLOW_CONSUMER
        assert slow.last.end.retry_after.ToMilliseconds() == 500
        got = slow.ids()
        assert len(got) <= 9
        again = made.subscribe(cursor=slow.last.end.cursor)
        await settle(200)
        assert got + again.ids() == [*map(str, range(30))]
        assert made.sample("bas_events_slow_disconnects_total") == 1


async def test_a_burst_that_is_read_in_time_costs_nobody_a_stream() -> None:
    async with rig(queue_events=8, ring=16) as made:
        reader = await made.listening()
        reader.reads.clear()
        await made.publish(*range(100))
        await made.clock.advance(0.5)
        reader.reads.set()
        await settle(600)
        await made.clock.advance(3)
        assert reader.ids() == [*map(str, range(100))]


async def test_a_reader_with_a_full_backlog_that_moves_has_longer_and_not_for_ever() -> None:
    async with rig(queue_events=8) as made:
        reader = await made.listening()
        reader.reads.clear()
        await made.publish(*range(30))
        reader.step()
        await made.clock.advance(4)
        assert not reader.has_ended()
        await made.clock.advance(2)
        reader.reads.set()
        await settle()
        assert reader.last.end.reason == END_REASON_SLOW_CONSUMER


async def test_a_reader_that_never_reads_is_cut_off() -> None:
    async with rig(queue_events=8) as made:
        slow = await made.listening()
        slow.reads.clear()
        await made.publish(*range(30))
        await made.clock.advance(10)
        assert slow.done
        assert not slow.has_ended()
        assert isinstance(slow.failure, ApiError)
        assert slow.failure.reason == "STREAM_NOT_READ"
        assert made.fanout.open == 0


async def test_a_conflating_reader_gets_the_newest_of_each_subject() -> None:
    async with rig(queue_events=8) as made:
        slow = await made.listening(Wish(ALL, conflate=True))
        slow.reads.clear()
        for number in range(40):
            await made.publish(number, subject=f"d{number % 4}")
        await made.clock.advance(10)
        slow.reads.set()
        await settle()
        await made.publish("live")
        assert slow.kinds() == ["heartbeat", "event", "gap", *["event"] * 5]
        assert slow.ids() == ["0", "36", "37", "38", "39", "live"]
        gap = slow.messages[2].gap
        assert gap.reason == GAP_REASON_CONFLATED
        assert gap.missing_count == 35
        assert position(gap.cursor).sequence == 36
        assert position(gap.first_cursor).sequence == 1


async def test_a_credential_that_ends_is_warned_of_and_ends_the_stream() -> None:
    async with rig() as made:
        reader = await made.listening(who=caller(left=100))
        await made.clock.advance(89)
        assert "warning" not in reader.kinds()
        await made.clock.advance(1.5)
        assert reader.kinds()[-1] == "warning"
        assert reader.last.warning.reason == END_REASON_CREDENTIAL_EXPIRED
        assert reader.last.warning.end_time.seconds == pytest.approx(made.clock.now().timestamp() + 10, abs=1.5)
        await made.publish("still")
        await made.clock.advance(10)
        assert reader.has_ended()
        assert reader.last.end.reason == END_REASON_CREDENTIAL_EXPIRED
        assert position(reader.last.end.cursor) == await made.position()


async def revoked(made: Rig, session_id: str, **more: str) -> None:
    await made.publish(
        f"r{session_id}",
        **{"kind": "session.revoked", "subject": f"sessions/{session_id}", "source": "/bas/sessions"} | more,
    )


async def test_a_revoked_session_ends_its_streams_and_no_other() -> None:
    async with rig() as made:
        theirs = await made.listening(Wish(wanting("device.*")), caller(session_id="s1"))
        others = await made.listening(who=caller(session_id="s2"))
        neighbour = await made.listening(who=caller("globex", session_id="s1"))
        await revoked(made, "s1", source="/elsewhere")
        await revoked(made, "s1", kind="session.made")
        assert not theirs.has_ended()
        await made.publish("end", kind="session.revoked", subject="sessions/s1", source="/bas/sessions")
        assert theirs.has_ended()
        assert theirs.kinds() == ["heartbeat", "warning", "end"]
        assert theirs.messages[1].warning.reason == theirs.last.end.reason == END_REASON_SESSION_REVOKED
        assert not others.has_ended()
        assert not neighbour.has_ended()


async def test_a_revoked_session_ends_a_stream_that_does_not_read_within_a_second() -> None:
    async with rig() as made:
        stuck = await made.listening(who=caller(session_id="s1"), reads=False)
        await revoked(made, "s1")
        await made.clock.advance(1)
        assert stuck.done
        assert made.fanout.open == 0


async def test_a_session_that_was_revoked_before_is_found_while_replaying() -> None:
    async with rig() as made:
        begin = await made.position()
        await made.publish("before")
        await revoked(made, "s1")
        await made.publish("after")
        reader = made.subscribe(Wish(ALL, begin), caller(session_id="s1"))
        await settle()
        assert reader.has_ended()
        assert "after" not in reader.ids()


async def test_draining_ends_all_and_takes_no_more() -> None:
    async with rig() as made:
        reader = await made.listening()
        await made.publish(1)
        await made.fanout.drain()
        await settle()
        assert reader.has_ended()
        assert reader.last.end.reason == END_REASON_DRAINING
        assert reader.last.end.retry_after.ToMilliseconds() == 2500
        assert position(reader.last.end.cursor) == await made.position()
        with pytest.raises(ApiError, check=lambda failure: failure.reason == "DRAINING"):
            made.subscribe()


async def test_a_tenant_has_so_many_streams() -> None:
    async with rig(tenant_streams=2) as made:
        first = await made.listening()
        await made.listening()
        await made.listening(who=caller("globex"))
        with pytest.raises(ApiError) as refused:
            made.subscribe()
        assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert refused.value.retry_after
        await first.close()
        assert made.sample("bas_events_subscribers") == 2
        await made.listening()


async def test_while_the_log_is_away_streams_live_and_then_go_on() -> None:
    async with rig(heartbeat=Seconds(10)) as made:
        reader = await made.listening()
        await made.publish(1)
        made.memory.away = True
        await made.clock.advance(25)
        assert reader.kinds() == ["heartbeat", "event", "heartbeat", "heartbeat"]
        made.memory.away = False
        await made.publish(2)
        assert reader.ids() == ["1", "2"]


async def test_who_comes_while_the_log_is_away_is_live_unless_it_needs_the_log() -> None:
    async with rig() as made:
        await made.publish(1)
        here = await made.position()
        made.memory.away = True
        live = await made.listening()
        asking = made.subscribe(Wish(ALL, Position(here.epoch, 0)))
        await settle()
        assert live.kinds() == ["heartbeat"]
        assert isinstance(asking.failure, ApiError)
        assert asking.failure.reason == "EVENTS_UNAVAILABLE"
        made.memory.away = False
        await settle()
        await made.clock.advance(3)
        await made.publish(2)
        assert live.ids() == ["2"]


async def test_nobody_is_followed_for_and_nothing_kept_when_all_have_gone() -> None:
    async with rig() as made:
        reader = await made.listening()
        shard = made.memory.shard_of("acme")
        await made.publish(1)
        await reader.close()
        await made.clock.advance(31)
        assert made.memory.followers(shard) == 1
        await made.publish(2)
        assert made.memory.followers(shard) == 0
        assert made.fanout._followers[shard]._ring.size == (0, 0)
        again = await made.listening()
        await made.publish(3)
        assert again.ids() == ["3"]
