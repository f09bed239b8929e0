"""PublishEvents: what is refused and how it is named, limits, a full server, a server that is away."""

from collections.abc import AsyncIterator

import pytest

from bas.events.v2.events_pb2 import CloudEvent
from chassis.clock import FakeClock
from chassis.config import Breaker as Budget
from chassis.config import Seconds
from chassis.errors import ApiError, Code
from chassis.resilience.breaker import Breaker
from services.events.events import EVENT_BYTES, RESERVED
from tests.integration.events.calls import Api, event, large, replica
from tests.support.valkey import Valkey

TEXTS = (
    "id",
    "source",
    "subject",
    "partitionkey",
    "datacontenttype",
    "dataschema",
    "traceparent",
    "type",
    "specversion",
)


@pytest.fixture
async def api(valkey: Valkey) -> AsyncIterator[Api]:
    async with replica(valkey.url) as made:
        yield made


async def refused(api: Api, *events: CloudEvent) -> list[str]:
    """The fields that are named; nothing was published."""
    with pytest.raises(ApiError) as failure:
        await api.publish(events)
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert not (await api.list()).events
    assert len(failure.value.message) < 300
    return [each.field for each in failure.value.violations]


async def test_the_answer_says_where_each_is(api: Api) -> None:
    first = await api.publish([event(1), event(2)])
    assert [(each.sequence, each.duplicate) for each in first.results] == [("1", False), ("2", False)]
    assert first.cursor == first.results[1].cursor
    again = await api.publish([event(3), event(1)])
    assert [(each.sequence, each.duplicate) for each in again.results] == [("3", False), ("1", True)]
    assert again.results[1].cursor == first.results[0].cursor
    # The furthest, not the last: who goes on from here gets nothing twice.
    assert again.cursor == again.results[0].cursor
    assert [each.event.id for each in (await api.list()).events] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "text", ["a\rb", "a\nb", "a\0b", "x" * 65_536, "x" * 70_000], ids=["CR", "LF", "NUL", "64 KiB", "more"]
)
async def test_bad_text_is_refused_in_every_field(api: Api, text: str) -> None:
    for name in TEXTS:
        bad = event("bad")
        setattr(bad, name, text)
        assert await refused(api, event("good"), bad) == [f"events[1].{name}"]
    bad = event("bad")
    bad.extensions["foo"].string_value = text
    assert await refused(api, bad) == ['events[0].extensions["foo"]']


@pytest.mark.parametrize("text", ["a\u2028b", "\u2029", "😀", "é", "\ufeff"])
async def test_text_of_people_is_kept_where_there_is_any(api: Api, text: str) -> None:
    written = event(text, subject=text, partitionkey=text)
    written.extensions["foo"].string_value = text
    written.data.string_value = text + "\r\n\0"
    await api.publish([written])
    (found,) = (await api.list(subject=text)).events
    assert (found.event.id, found.event.subject, found.event.partitionkey) == (text, text, text)
    assert found.event.extensions == written.extensions
    assert found.event.data == written.data
    for name in ("source", "type", "datacontenttype", "dataschema", "traceparent", "specversion"):
        bad = event("bad")
        setattr(bad, name, text)
        with pytest.raises(ApiError) as failure:
            await api.publish([bad])
        assert [each.field for each in failure.value.violations] == [f"events[0].{name}"]


async def test_attributes_are_those_of_cloudevents(api: Api) -> None:
    for fields, name in (
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": "1.0.1"}, "specversion"),
        ({"source": "%zz"}, "source"),
        ({"source": "a#b#c"}, "source"),
        ({"source": "a b"}, "source"),
        ({"dataschema": "/no/scheme"}, "dataschema"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"traceparent": "00-abc-def-01"}, "traceparent"),
    ):
        assert await refused(api, event(1, **fields)) == [f"events[0].{name}"]
    for name in ("id", "source", "type"):
        assert await refused(api, event(1, **{name: ""}) if name != "type" else event(1, "")) == [f"events[0].{name}"]
    both = event(1, data_base64=b"x")
    both.data.null_value = 0  # type: ignore[assignment]
    assert await refused(api, both) == ["events[0].data_base64"]
    fine = event(
        1,
        specversion="1.0",
        source="urn:x:1?a=%20#f",
        dataschema="https://x.example/s",
        datacontenttype="text/plain; charset=utf-8",
    )
    fine.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    await api.publish([fine])


async def test_extensions(api: Api) -> None:
    for name in sorted(RESERVED):
        bad = event(1)
        bad.extensions[name].bool_value = True
        assert await refused(api, bad) == [f'events[0].extensions["{name}"]']
    for name in ("Foo", "a_b", "x" * 21, "é", "a b", ""):
        bad = event(1)
        bad.extensions[name].bool_value = True
        (field,) = await refused(api, bad)
        assert field.startswith("events[0].extensions")
    for kind, value in (
        ("number_value", 1.5),
        ("number_value", 2.0**31),
        ("null_value", 0),
        ("number_value", float("nan")),
    ):
        bad = event(1)
        setattr(bad.extensions["foo"], kind, value)
        (field,) = set(await refused(api, bad))
        assert field.startswith('events[0].extensions["foo"]')
    unset = event(1)
    unset.extensions["foo"].SetInParent()
    assert await refused(api, unset) == ['events[0].extensions["foo"]']


async def test_sizes(api: Api) -> None:
    assert await refused(api, large(1, 65_537)) == ["events[0].data"]
    assert await refused(api, event(1, data_base64=bytes(65_537))) == ["events[0].data_base64"]
    await api.publish([event(1, data_base64=bytes(65_536))])
    assert EVENT_BYTES > 65_536 + 16 * 1024 + 4 * 2048


async def test_five_hundred_and_one_more(api: Api) -> None:
    assert await refused(api, *(event(index) for index in range(501))) == ["events"]
    assert await refused(api) == ["events"]
    answer = await api.publish([event(index) for index in range(500)])
    assert [each.sequence for each in answer.results] == [str(index) for index in range(1, 501)]


async def test_what_the_platform_says_is_not_the_publishers_to_say(api: Api) -> None:
    await api.publish([event(1, tenantid="other", sequence="77")])
    (found,) = (await api.list()).events
    assert (found.event.tenantid, found.event.sequence) == ("acme", "1")
    assert not (await api.list("other")).events


async def test_a_tenant_that_publishes_too_fast(valkey: Valkey) -> None:
    clock = FakeClock()
    async with replica(valkey.url, clock=clock, publish_rate=10.0, publish_bytes=65_536) as api:
        await api.publish([event(index) for index in range(10)])
        with pytest.raises(ApiError) as failure:
            await api.publish([event("x")])
        assert (failure.value.code, failure.value.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert failure.value.retry_after == pytest.approx(0.1)
        await api.publish([event("x")], "another")
        await clock.advance(0.1)
        await api.publish([event("x")])
        await clock.advance(10)
        # More than a second's worth passes when the bucket is full, and is paid for afterwards.
        await api.publish([event(f"y{index}") for index in range(30)])
        with pytest.raises(ApiError) as failure:
            await api.publish([event("z")])
        assert failure.value.retry_after == pytest.approx(2.1)
        await clock.advance(10)
        await api.publish([large("a"), large("b")])
        with pytest.raises(ApiError) as failure:
            await api.publish([large("c")])
        assert failure.value.retry_after == pytest.approx(2 * 60_000 / 65_536, rel=0.1)


async def test_a_full_server_takes_all_or_nothing(own_valkey: Valkey) -> None:
    async with replica(own_valkey.url, publish_rate=1e6, publish_bytes=2**40) as api:
        await api.publish([event("first")])
        before = await api.list()
        used = int(str(own_valkey.command("INFO", "memory")["used_memory"]))
        own_valkey.command("CONFIG", "SET", "maxmemory", used + 300_000)
        published = 0

        async def fill() -> None:
            nonlocal published
            for step in range(100):
                await api.publish([large(f"{step}/{index}", 10_000) for index in range(20)])
                published += 20

        with pytest.raises(ApiError) as failure:
            await fill()
        assert (failure.value.reason, failure.value.retry_after) == ("EVENTS_UNAVAILABLE", 1.0)
        # Reading goes on, and nothing of what was there was evicted.
        found: list[str] = []
        page = before
        while not page.caught_up or not found:
            page = await api.list(cursor=page.next_cursor, page_size=1000)
            found += [each.event.id for each in page.events]
        assert found == [f"{step}/{index}" for step in range(published // 20) for index in range(20)]
        own_valkey.command("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(ApiError):
            await api.publish([event("one more")])
        assert (await api.publish([event("first")])).results[0].duplicate
        own_valkey.command("CONFIG", "SET", "maxmemory", 0)
        assert (await api.publish([event("one more")])).results[0].sequence == str(published + 2)


async def test_an_open_breaker_answers_at_once(own_valkey: Valkey) -> None:
    clock = FakeClock()
    breaker = Breaker("events-log", Budget(failures=2), clock)
    async with replica(own_valkey.url, guard=breaker, log_timeout=Seconds(0.1)) as api:
        own_valkey.pause()
        try:
            for _ in range(2):
                with pytest.raises(ApiError, match="does not answer"):
                    await api.publish([event(1)])
            with pytest.raises(ApiError) as failure:
                await api.publish([event(1)])
        finally:
            own_valkey.resume()
        assert failure.value.reason == "BREAKER_OPEN"
        assert failure.value.retry_after
