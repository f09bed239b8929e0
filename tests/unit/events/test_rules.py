"""The pure parts of the log: records, identities, filters, limits, lineages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.events.v2.events_pb2 import CloudEvent, LoggedEvent
from bas.events.v2.events_service_pb2 import ListEventsResponse, SubscribeEventsResponse
from chassis.api.cursors import Position
from chassis.clock import FakeClock
from chassis.errors import ApiError
from services.events import limits
from services.events.epoch import Lineage, Witness, parse_earlier
from services.events.filters import EventFilter, compile_filter
from services.events.limits import PublishLimits
from services.events.records import entry, framed, identity, record

TEXT = st.text(max_size=300)
EVENTS = st.builds(
    CloudEvent,
    id=TEXT,
    source=TEXT,
    type=TEXT,
    subject=TEXT,
    specversion=st.sampled_from(["", "1.0"]),
    tenantid=TEXT,
    sequence=TEXT,
    data_base64=st.binary(max_size=300),
    partitionkey=TEXT,
)
NOW = FakeClock().now()


@settings(max_examples=40)
@given(event=EVENTS, tenant=TEXT, sequence=st.integers(0, 2**53))
def test_a_record_becomes_the_event_again(event: CloudEvent, tenant: str, sequence: int) -> None:
    before = CloudEvent.FromString(event.SerializeToString())
    found = entry(tenant, Position("e", sequence), "cursor", record(event, NOW))
    assert event == before
    told = LoggedEvent.FromString(found.logged)
    event.time.FromDatetime(NOW)
    event.specversion, event.tenantid, event.sequence = "1.0", tenant, str(sequence)
    assert told == LoggedEvent(cursor="cursor", event=event)
    assert (found.type, found.source, found.subject) == (event.type, event.source, event.subject)
    for message in (ListEventsResponse, SubscribeEventsResponse):
        assert message.FromString(framed(found.logged)).SerializeToString() != b""
    (listed,) = ListEventsResponse.FromString(framed(found.logged)).events
    assert listed == told == SubscribeEventsResponse.FromString(framed(found.logged)).event


def test_what_is_no_record() -> None:
    with pytest.raises(ValueError, match="begins with"):
        entry("t", Position("e", 1), "c", CloudEvent(id="1").SerializeToString())


@given(one=st.tuples(TEXT, TEXT), other=st.tuples(TEXT, TEXT))
def test_identities_differ_as_source_and_id_do(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = (identity(CloudEvent(source=source, id=name)) for source, name in (one, other))
    assert (first == second) is (one == other)


NAMES = st.text("ab.", min_size=1, max_size=4)


@settings(max_examples=50)
@given(exact=st.lists(NAMES, max_size=4), prefixes=st.lists(st.text("ab.", max_size=3), max_size=4), name=NAMES)
def test_a_filter_passes_what_any_of_its_types_does(exact: list[str], prefixes: list[str], name: str) -> None:
    made = compile_filter([*exact, *(prefix + "*" for prefix in prefixes)])
    wanted = (not exact and not prefixes) or name in exact or any(name.startswith(prefix) for prefix in prefixes)
    assert made.wants(name) is wanted


def test_equal_filters_are_written_alike() -> None:
    assert compile_filter(["b.*", "a", "b.c", "b.d*", "a"]) == compile_filter(["a", "b.*"])
    assert compile_filter(["a", "*"], "s") == EventFilter(subject="s")
    assert compile_filter([]).everything
    assert not compile_filter([], source="s").everything


def test_the_lineage_knows_where_epochs_ended() -> None:
    lineage = Lineage("new", 10, parse_earlier(b"old:7,cut:-1,older:0,"))
    for epoch, number, holds in (
        ("new", 10, True),
        ("new", 11, False),
        ("old", 7, True),
        ("old", 8, False),
        ("older", 0, True),
        ("cut", 0, False),
        ("unknown", 0, False),
    ):
        assert lineage.holds(epoch, number) is holds
    assert parse_earlier(None) == parse_earlier(b"") == {}


def test_a_witness_remembers_the_furthest() -> None:
    witness = Witness()
    witness.learn("a", 5)
    witness.learn("a", 3)
    assert (witness.epoch, witness.number) == ("a", 5)
    witness.learn("b", 1)
    assert (witness.epoch, witness.number) == ("b", 1)


async def test_limits_forget_who_has_not_published_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENANTS", 2)
    made = PublishLimits(1.0, 1000, FakeClock().monotonic)
    for tenant in ("a", "b"):
        made.take(tenant, 1, 10)
    with pytest.raises(ApiError):
        made.take("a", 1, 10)
    made.take("c", 1, 10)
    made.take("b", 1, 10)
    with pytest.raises(ApiError):
        made.take("c", 1, 10)


async def test_a_rate_is_kept_in_the_long_run() -> None:
    clock = FakeClock()
    made = PublishLimits(10.0, 10**9, clock.monotonic)
    published = 0
    for _ in range(1000):
        try:
            made.take("a", 7, 1)
            published += 7
        except ApiError as refused:
            assert refused.retry_after is not None  # noqa: PT017 - each refusal says it
        await clock.advance(0.1)
    assert 990 <= published <= 1017


def test_an_impossible_refusal_does_not_take_anything() -> None:
    made = PublishLimits(10.0, 100, FakeClock().monotonic)
    made.take("a", 5, 10)
    with pytest.raises(ApiError):
        made.take("a", 6, 1)
    made.take("a", 5, 10)
