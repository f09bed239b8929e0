"""The promises of the EventLog port, of the log in memory and of the real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bas.events.v2.events_pb2 import (
    GAP_REASON_AHEAD_OF_LOG,
    GAP_REASON_EPOCH_CHANGED,
    GAP_REASON_TOO_OLD,
    CloudEvent,
    LoggedEvent,
)
from chassis.api.cursors import Cursors, Position
from services.events.port import Broken, Entry, EventLog
from tests.conformance.events.subject import KEEP, Subject, memory, real
from tests.support.event_log import SECRET
from tests.support.valkey import Valkey

TENANTS = ("acme", "acme/log", "{ev:0}", "a}b{c", "line\r\nfeed", "nul\0", "\u2028", "😀", "x" * 70_000)


@pytest.fixture(params=["memory", "valkey"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        async with memory() as made:
            yield made
    else:
        server: Valkey = request.getfixturevalue("valkey")
        async with real(server) as made:
            yield made


@pytest.fixture
def log(subject: Subject) -> EventLog:
    return subject.log


def event(name: object, source: str = "/s", **fields: str) -> CloudEvent:
    return CloudEvent(id=str(name), source=source, type=fields.pop("type", "thing.done"), **fields)  # type: ignore[arg-type]


async def everything(log: EventLog, tenant: str) -> list[Entry]:
    return await log.read(tenant, (await log.extent(tenant)).first, limit=10_000, max_bytes=10**9)


async def names(log: EventLog, tenant: str) -> list[str]:
    return [LoggedEvent.FromString(each.logged).event.id for each in await everything(log, tenant)]


async def test_what_is_published_is_there_as_it_was(log: EventLog) -> None:
    written = event(1, subject="devices/d1\u2028😀", traceparent="t", partitionkey="p", dataschema="s:x")
    written.data.struct_value.update({"a": [1, None, "b"]})
    written.time.FromJsonString("2020-02-29T12:00:00.123456789Z")
    written.extensions["foo"].number_value = 7
    (placed,) = await log.publish("acme", [written])
    (found,) = await everything(log, "acme")
    told = LoggedEvent.FromString(found.logged)
    assert told.cursor == found.cursor == placed.cursor == log.cursor("acme", placed.position)
    assert Cursors(SECRET).read("acme", found.cursor) == found.position == placed.position
    assert (found.type, found.subject, found.source) == (written.type, written.subject, written.source)
    written.specversion, written.tenantid, written.sequence = "1.0", "acme", "1"
    assert told.event == written


async def test_binary_data_and_a_time_of_its_own(log: EventLog) -> None:
    await log.publish("acme", [CloudEvent(id="1", source="/s", type="t", data_base64=bytes(range(256)))])
    (found,) = await everything(log, "acme")
    told = LoggedEvent.FromString(found.logged).event
    assert told.data_base64 == bytes(range(256))
    assert told.HasField("time")


async def test_sequences_begin_at_one_and_have_no_hole(log: EventLog) -> None:
    for start in (0, 3):
        placed = await log.publish("acme", [event(start + index) for index in range(3)])
        assert [each.position.sequence for each in placed] == [start + 1, start + 2, start + 3]
        assert not any(each.duplicate for each in placed)
    extent = await log.extent("acme")
    assert (extent.first.sequence, extent.last) == (0, placed[-1].position)


async def test_what_was_there_before_is_dropped_and_placed_where_it_is(log: EventLog) -> None:
    first = await log.publish("acme", [event("a"), event("b")])
    again = await log.publish("acme", [event("c"), event("b"), event("c"), event("a", type="other")])
    assert [(each.position.sequence, each.duplicate) for each in again] == [(3, False), (2, True), (3, True), (1, True)]
    assert again[1].cursor == first[1].cursor
    assert await names(log, "acme") == ["a", "b", "c"]


async def test_source_and_id_are_told_apart(log: EventLog) -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "x"), ("1:a", "b"), ("a\0", "b"), ("a", "\0b")]
    placed = await log.publish("acme", [event(name, source) for source, name in pairs])
    assert not any(each.duplicate for each in placed)


async def test_tenants_are_apart(log: EventLog) -> None:
    for tenant in TENANTS:
        assert (await log.publish(tenant, [event("same")]))[0].position.sequence == 1
    for tenant in TENANTS:
        (found,) = await everything(log, tenant)
        assert found.tenant == tenant
        assert LoggedEvent.FromString(found.logged).event.tenantid == tenant


async def test_a_tenant_without_events(log: EventLog) -> None:
    extent = await log.extent("nobody")
    assert extent.first == extent.last
    assert extent.first.sequence == 0
    assert await log.read("nobody", extent.first, limit=10, max_bytes=1000) == []
    assert extent == await log.extent("nobody")
    await log.publish("nobody", [event(1)])
    assert (await log.extent("nobody")).place(extent.last) is not None


async def test_reading_stops_at_its_limits(log: EventLog) -> None:
    await log.publish("acme", [event(index, subject="s" * 100) for index in range(9)])
    extent = await log.extent("acme")
    for limit in (1, 2, 9, 10):
        found = await log.read("acme", extent.first, limit=limit, max_bytes=10**6)
        assert [each.position.sequence for each in found] == list(range(1, min(limit, 9) + 1))
    assert len(await log.read("acme", extent.first, limit=10, max_bytes=1)) == 1
    few = await log.read("acme", extent.first, limit=10, max_bytes=1000)
    assert 1 < len(few) < 9
    rest = await log.read("acme", few[-1].position, limit=10, max_bytes=10**6)
    assert [each.position.sequence for each in few + rest] == list(range(1, 10))


async def test_there_is_no_place_for_positions_of_elsewhere(log: EventLog) -> None:
    await log.publish("acme", [event(1), event(2)])
    extent = await log.extent("acme")
    for position, reason in (
        (Position("other", 1), GAP_REASON_EPOCH_CHANGED),
        (Position("other", 0), GAP_REASON_EPOCH_CHANGED),
        (Position(extent.last.epoch, 3), GAP_REASON_AHEAD_OF_LOG),
        (Position(extent.last.epoch, 10**18), GAP_REASON_AHEAD_OF_LOG),
    ):
        assert extent.why_not(position) == reason
        assert await log.read("acme", position, limit=10, max_bytes=1000) == []
    assert await log.read("acme", extent.last, limit=10, max_bytes=1000) == []


async def test_retention_keeps_exactly_so_many(log: EventLog) -> None:
    await log.publish("acme", [event(index) for index in range(KEEP)])
    before = await log.extent("acme")
    assert before.first.sequence == 0
    await log.publish("acme", [event("one more")])
    after = await log.extent("acme")
    assert (after.first.sequence, after.last.sequence) == (1, KEEP + 1)
    assert after.why_not(before.first) == GAP_REASON_TOO_OLD
    assert await log.read("acme", before.first, limit=1, max_bytes=1000) == []
    assert after.place(after.first) == after.first
    found = await everything(log, "acme")
    assert [each.position.sequence for each in found] == list(range(2, KEEP + 2))


async def test_a_batch_larger_than_what_is_kept(log: EventLog) -> None:
    placed = await log.publish("acme", [event(index) for index in range(3 * KEEP)])
    assert placed[-1].position.sequence == 3 * KEEP
    assert await names(log, "acme") == [str(index) for index in range(2 * KEEP, 3 * KEEP)]


async def test_publishers_at_once_leave_no_hole_and_keep_their_order(log: EventLog) -> None:
    async def publisher(mine: int) -> list[int]:
        found = []
        for step in range(5):
            found += [each.position.sequence for each in await log.publish("acme", [event(f"{mine}/{step}")])]
        return found

    placed = await asyncio.gather(*(publisher(mine) for mine in range(4)))
    assert all(each == sorted(each) for each in placed)
    assert sorted(sequence for each in placed for sequence in each) == list(range(1, 21))
    by_sequence = {sequence: f"{mine}/{step}" for mine, each in enumerate(placed) for step, sequence in enumerate(each)}
    assert await names(log, "acme") == [by_sequence[sequence] for sequence in range(1, 21)]


async def test_following_brings_what_happens_after_it_has_begun(log: EventLog) -> None:
    await log.publish("acme", [event("before")])
    async with aclosing(log.follow(log.shard_of("acme"))) as following:  # type: ignore[type-var]
        assert await next_of(following) == []
        placed = await log.publish("acme", [event(index) for index in range(5)])
        placed += await log.publish("acme", [event("last")])
        found: list[Entry] = []
        while len(found) < len(placed):
            told = await next_of(following)
            assert isinstance(told, list)
            found += told
        assert [each.position for each in found] == [each.position for each in placed]
        assert [each.cursor for each in found] == [each.cursor for each in placed]


async def test_followers_see_all_tenants_of_their_shard_and_no_others(log: EventLog) -> None:
    tenants = [f"t{index}" for index in range(12)]
    shard = log.shard_of("t0")
    async with aclosing(log.follow(shard)) as following:  # type: ignore[type-var]
        assert await next_of(following) == []
        for step in range(2):
            for tenant in tenants:
                await log.publish(tenant, [event(step)])
        expected = sorted(
            (tenant, step + 1) for tenant in tenants if log.shard_of(tenant) == shard for step in range(2)
        )
        found: list[tuple[str, int]] = []
        while len(found) < len(expected):
            told = await next_of(following)
            assert isinstance(told, list)
            found += [(each.tenant, each.position.sequence) for each in told]
        assert sorted(found) == expected
        assert all(found.index((tenant, 1)) < found.index((tenant, 2)) for tenant, _ in expected)


async def test_a_log_that_was_lost(subject: Subject) -> None:
    log = subject.log
    async with aclosing(log.follow(log.shard_of("acme"))) as following:  # type: ignore[type-var]
        assert await next_of(following) == []
        (old,) = await log.publish("acme", [event("a")])
        assert await next_of(following) != []
        subject.lose()
        (new,) = await log.publish("acme", [event("a")])
        assert (new.position.sequence, new.duplicate) == (1, False)
        assert new.position.epoch != old.position.epoch
        extent = await log.extent("acme")
        assert extent.why_not(old.position) == GAP_REASON_EPOCH_CHANGED
        assert extent.why_not(Position(old.position.epoch, 0)) == GAP_REASON_EPOCH_CHANGED
        assert isinstance(await next_of(following), Broken)
        (after,) = await log.publish("acme", [event("b")])
        while not (isinstance(told := await next_of(following), list) and told[-1].position == after.position):
            pass


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(st.integers(0, 12), min_size=1, max_size=8)),
        st.tuples(st.just("read"), st.tuples(st.integers(0, 60), st.integers(1, 30))),
    ),
    min_size=1,
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_it_is_the_list_that_one_thinks_of(subject: Subject, steps: list[tuple[str, object]]) -> None:
    log = subject.log
    subject.lose()
    kept: list[str] = []
    for what, detail in steps:
        if what == "publish":
            assert isinstance(detail, list)
            placed = await log.publish("acme", [event(number) for number in detail])
            for number, each in zip(detail, placed, strict=True):
                known = str(number) in kept
                assert each.duplicate is known
                if not known:
                    kept.append(str(number))
                assert each.position.sequence == kept.index(str(number)) + 1
        else:
            assert isinstance(detail, tuple)
            after, limit = detail
            extent = await log.extent("acme")
            first = max(0, len(kept) - KEEP)
            assert (extent.first.sequence, extent.last.sequence) == (first, len(kept))
            found = await log.read("acme", Position(extent.last.epoch, after), limit=limit, max_bytes=10**6)
            expected = kept[after : after + limit] if first <= after <= len(kept) else []
            assert [LoggedEvent.FromString(each.logged).event.id for each in found] == expected


async def next_of(following: AsyncIterator[list[Entry] | Broken]) -> list[Entry] | Broken:
    async with asyncio.timeout(30):
        return await anext(following)
