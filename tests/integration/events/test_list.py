"""ListEvents: filters, pages, bounds, cursors that are no good, what becomes too old."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from bas.events.v2.events_pb2 import GAP_REASON_AHEAD_OF_LOG, GAP_REASON_EPOCH_CHANGED, GAP_REASON_TOO_OLD
from bas.events.v2.events_service_pb2 import ListEventsResponse
from chassis.api.cursors import Cursors, Position, parse
from chassis.clock import FakeClock
from chassis.config import Seconds
from chassis.errors import ApiError, Code
from services.events.listing import PAGE_BYTES, SCANNED_EVENTS
from tests.integration.events.calls import Api, event, large, replica
from tests.integration.sessions.conftest import secret
from tests.support.valkey import Valkey

CURSORS = Cursors(secret("events cursors"))


@pytest.fixture
async def api(valkey: Valkey) -> AsyncIterator[Api]:
    async with replica(valkey.url, retention_count=10, publish_rate=1e6) as made:
        yield made


@pytest.fixture
async def wide(valkey: Valkey) -> AsyncIterator[Api]:
    async with replica(valkey.url, publish_rate=1e6, publish_bytes=2**40) as made:
        yield made


def ids(page: ListEventsResponse) -> list[str]:
    return [each.event.id for each in page.events]


async def test_an_empty_log(api: Api) -> None:
    page = await api.list()
    assert (ids(page), page.caught_up, page.HasField("gap")) == ([], True, False)
    await api.publish([event(1)])
    assert ids(await api.list(cursor=page.next_cursor)) == ["1"]


async def test_pages_follow_each_other(api: Api) -> None:
    await api.publish([event(index) for index in range(7)])
    found, cursor, sizes = [], "", []
    while True:
        page = await api.list(page_size=3, cursor=cursor)
        found += ids(page)
        sizes.append((len(page.events), page.caught_up))
        cursor = page.next_cursor
        if page.caught_up:
            break
    assert found == [str(index) for index in range(7)]
    assert sizes == [(3, False), (3, False), (1, True)]
    last = await api.list(cursor=cursor)
    assert (ids(last), last.caught_up, last.next_cursor) == ([], True, cursor)
    assert (await api.list(page_size=7)).caught_up
    assert page.events[-1].cursor == cursor


async def test_filters(wide: Api) -> None:
    await wide.publish(
        [
            event(1, "device.online", subject="d1"),
            event(2, "device.offline", subject="d2", source="/other"),
            event(3, "devices", subject="d1"),
            event(4, "session.revoked"),
        ]
    )
    for fields, expected in (
        ({"types": ["device.*"]}, ["1", "2"]),
        ({"types": ["device*"]}, ["1", "2", "3"]),
        ({"types": ["*"]}, ["1", "2", "3", "4"]),
        ({"types": ["devices", "session.*"]}, ["3", "4"]),
        ({"types": ["device"]}, []),
        ({"subject": "d1"}, ["1", "3"]),
        ({"subject": "d1", "types": ["device.*"]}, ["1"]),
        ({"source": "/other"}, ["2"]),
        ({"source": "/other", "subject": "d1"}, []),
    ):
        page = await wide.list(**fields)
        assert ids(page) == expected, fields
        assert page.caught_up
        assert parse(page.next_cursor).sequence == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "types", [["*.x"], ["a*b"], ["a b"], ["**"], ["é*"], ["a", "\n"], [""], ["x"] * 33, ["x" * 129]]
)
async def test_types_that_cannot_be(api: Api, types: list[str]) -> None:
    with pytest.raises(ApiError) as failure:
        await api.list(types=types)
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert failure.value.violations[0].field.startswith("types")


async def test_a_cursor_that_is_too_old(api: Api) -> None:
    (start,) = (await api.publish([event("a")])).results
    await api.publish([event(index) for index in range(10)])
    at_the_edge = await api.list(cursor=start.cursor)
    assert (ids(at_the_edge), at_the_edge.HasField("gap")) == ([str(index) for index in range(10)], False)
    await api.publish([event("b"), event("c")])
    page = await api.list(cursor=start.cursor)
    assert ids(page) == [*(str(index) for index in range(2, 10)), "b", "c"]
    assert (page.gap.reason, page.gap.missing_count) == (GAP_REASON_TOO_OLD, 2)
    assert page.gap.cursor == page.gap.first_cursor
    assert ids(await api.list(cursor=page.gap.first_cursor)) == ids(page)
    assert not (await api.list(cursor=page.gap.first_cursor)).HasField("gap")


async def test_a_cursor_of_another_epoch_and_one_from_the_future(api: Api) -> None:
    (placed,) = (await api.publish([event("a")])).results
    await api.publish([event("b")])
    epoch = parse(placed.cursor).epoch  # type: ignore[union-attr]
    for position, reason in (
        (Position("elsewhere", 1), GAP_REASON_EPOCH_CHANGED),
        (Position("elsewhere", 0), GAP_REASON_EPOCH_CHANGED),
        (Position(epoch, 3), GAP_REASON_AHEAD_OF_LOG),
        (Position(epoch, 10**18), GAP_REASON_AHEAD_OF_LOG),
    ):
        page = await api.list(cursor=CURSORS.write("acme", position))
        assert (ids(page), page.gap.reason, page.gap.missing_count) == (["a", "b"], reason, 0)
        assert page.caught_up


async def test_cursors_that_are_none(api: Api) -> None:
    (placed,) = (await api.publish([event("a")])).results
    theirs = (await api.publish([event("a")], "other")).cursor
    wrong_end = placed.cursor[:-1] + ("A" if placed.cursor[-1] != "A" else "B")
    for cursor in (
        "x",
        "a.1.b",
        theirs,
        wrong_end,
        placed.cursor + "x",
        "a" * 256,
        "a" * 257,
        "0",
        "é",
        "a\r\nb",
        "\0",
    ):
        with pytest.raises(ApiError) as failure:
            await api.list(cursor=cursor)
        assert failure.value.code is Code.INVALID_ARGUMENT
        assert [each.field for each in failure.value.violations] == ["cursor"]


async def test_a_page_has_its_weight(wide: Api) -> None:
    for start in range(0, 40, 20):
        await wide.publish([large(index) for index in range(start, start + 20)])
    found: list[str] = []
    page = await wide.list(page_size=1000)
    while page.events:
        assert page.ByteSize() <= PAGE_BYTES + 1024
        found += ids(page)
        page = await wide.list(page_size=1000, cursor=page.next_cursor)
    assert found == [str(index) for index in range(40)]


async def test_looking_for_what_is_rare_has_its_bound(wide: Api) -> None:
    for start in range(0, SCANNED_EVENTS + 1000, 500):
        await wide.publish([event(index) for index in range(start, start + 500)])
    await wide.publish([event("rare", "rare")])
    page = await wide.list(types=["rare"])
    assert (ids(page), page.caught_up) == ([], False)
    assert parse(page.next_cursor).sequence == SCANNED_EVENTS  # type: ignore[union-attr]
    page = await wide.list(types=["rare"], cursor=page.next_cursor)
    assert (ids(page), page.caught_up) == (["rare"], True)


async def test_what_becomes_too_old(valkey: Valkey) -> None:
    clock = FakeClock()
    async with replica(
        valkey.url, shards=1, log_clock=clock, retention_age=Seconds(100), dedupe_window=Seconds(30)
    ) as api:
        await api.publish([event("a")])
        await clock.advance(60)
        await api.publish([event("b")])
        await clock.advance(39.999)
        await api.sweep.sweep(0)
        assert ids(await api.list()) == ["a", "b"]
        await clock.advance(0.001)
        await api.sweep.sweep(0)
        page = await api.list()
        assert ids(page) == ["b"]
        assert (await api.publish([event("c")])).results[0].sequence == "3"
        await clock.advance(80)
        await api.publish([event("d")])
        assert ids(await api.list()) == ["c", "d"]
        await clock.advance(1000)
        # Events first, then, generation by generation, what is known of their identities.
        for _ in range(3):
            await api.sweep.sweep(0)
            await clock.advance(31)
        empty = await api.list()
        assert (ids(empty), empty.caught_up, parse(empty.next_cursor).sequence) == ([], True, 4)  # type: ignore[union-attr]
        left = sorted(valkey.command("KEYS", "*"))
        assert left == [b"{ev:0}", b"{ev:0}/feed", b"{ev:0}/state/acme"]
        assert (await api.list(cursor=page.next_cursor)).gap.missing_count == 2
        assert (await api.publish([event("a")])).results[0].sequence == "5"


async def test_an_identity_is_known_for_the_window_at_least(valkey: Valkey) -> None:
    clock = FakeClock()
    async with replica(valkey.url, log_clock=clock, dedupe_window=Seconds(30)) as api:
        for step in range(40):
            assert not (await api.publish([event(step)])).results[0].duplicate
            await clock.advance(2)
            for known in range(max(0, step - 14), step):
                assert (await api.publish([event(known)])).results[0].duplicate
        assert clock.now() > FakeClock().now() + timedelta(seconds=60)
        assert not (await api.publish([event(0)])).results[0].duplicate


async def test_bytes_are_bounded_too(valkey: Valkey) -> None:
    async with replica(valkey.url, retention_bytes=200_000, publish_bytes=2**30) as api:
        for index in range(10):
            await api.publish([large(index)])
        assert ids(await api.list()) == ["7", "8", "9"]
        await api.publish([event("small")])
        assert ids(await api.list()) == ["7", "8", "9", "small"]
