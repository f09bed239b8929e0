"""CloudEvents as their own JSON format has them, to the messages of the API and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bas.events.v2.events_service_pb2 import PublishEventsRequest
from chassis.errors import ApiError
from gateway.module import load_schema
from gateway.sse.frames import cloud_event
from gateway.transcoding.binding import Binder
from gateway.transcoding.body import BodyChecker
from gateway.transcoding.cloudevents import BATCH, SINGLE, translations
from gateway.transcoding.codec import load_codec
from gateway.transcoding.routes import Route, route_tables

SCHEMA = load_schema()
CODEC = load_codec(SCHEMA.files)
ROUTES = {
    (route.method.name, route.rule.method): route
    for table in route_tables(SCHEMA.methods).values()
    for route in table.routes
}
PUBLISH = ROUTES["PublishEvents", "POST"]
BINDER = Binder(PUBLISH, SCHEMA, CODEC, BodyChecker(SCHEMA, CODEC))
MINIMAL = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def published(kind: str, body: Any) -> PublishEventsRequest:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return PublishEventsRequest.FromString(BINDER.bind([], b"", BINDER.translations[kind](text)))


def test_one_event() -> None:
    given_event = MINIMAL | {
        "time": "2026-01-31T12:00:00Z",
        "subject": "devices/d1",
        "datacontenttype": "application/json",
        "data": {"a": [1, None, "ü"]},
        "comexampleextension1": "value",
        "comexampleothervalue": 5,
        "flag": True,
        "unset": None,
        "dataschema": None,
    }
    (event,) = published(SINGLE, given_event).events
    assert sorted(event.extensions) == ["comexampleextension1", "comexampleothervalue", "flag"]
    assert event.extensions["comexampleothervalue"].number_value == 5
    expected = {name: value for name, value in given_event.items() if value is not None}
    assert cloud_event(event) == expected


def test_a_batch() -> None:
    request = published(BATCH, [MINIMAL, MINIMAL | {"id": "2", "data_base64": "AAH/", "x": "y"}])
    assert [cloud_event(event) for event in request.events] == [
        MINIMAL,
        MINIMAL | {"id": "2", "data_base64": "AAH/", "x": "y"},
    ]
    assert not published(BATCH, []).events


def test_data_may_be_null_or_any_json() -> None:
    values: list[Any] = [None, 0, "", [], {}, False]
    for data in values:
        (event,) = published(SINGLE, MINIMAL | {"data": data}).events
        assert cloud_event(event)["data"] == data
    assert "data" not in cloud_event(published(SINGLE, MINIMAL).events[0])


def test_an_extension_may_be_named_like_our_own_field() -> None:
    (event,) = published(SINGLE, MINIMAL | {"extensions": "mine"}).events
    assert event.extensions["extensions"].string_value == "mine"
    assert cloud_event(event)["extensions"] == "mine"


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (SINGLE, [MINIMAL], "body"),
        (SINGLE, 1, "body"),
        (BATCH, MINIMAL, "body"),
        (BATCH, [MINIMAL, 1], "[1]"),
        (SINGLE, MINIMAL | {"time": "today"}, "events[0].time"),
        (BATCH, [MINIMAL, MINIMAL | {"id": 1}], "events[1].id"),
    ],
)
def test_what_is_no_event_is_named(kind: str, body: object, field: str) -> None:
    with pytest.raises(ApiError) as refused:
        published(kind, body)
    assert [each.field for each in refused.value.violations] == [field]


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": 1, "id": 2}', b"\xff", b'{"x": NaN}'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    for kind in (SINGLE, BATCH):
        with pytest.raises(ApiError) as refused:
            published(kind, body)
        assert refused.value.reason == "MALFORMED_JSON"


def test_only_lists_of_events_come_as_cloud_events() -> None:
    def kinds(route: Route) -> set[str]:
        return set(translations(route, SCHEMA))

    assert kinds(PUBLISH) == {SINGLE, BATCH}
    assert all(not kinds(route) for route in ROUTES.values() if route is not PUBLISH)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
VALUES = st.one_of(st.text(st.characters(codec="utf-8")), st.integers(-(2**31), 2**31 - 1), st.booleans())
JSON = st.recursive(
    st.one_of(st.none(), VALUES),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5), JSON)
def test_what_goes_in_comes_out(extensions: dict[str, Any], data: Any) -> None:
    known = set(json.loads(json.dumps(MINIMAL))) | {"time", "subject", "sequence", "tenantid", "data", "dataschema"}
    known |= {"datacontenttype", "partitionkey", "traceparent"}
    sent = {name: value for name, value in extensions.items() if name not in known} | MINIMAL | {"data": data}
    (event,) = published(SINGLE, sent).events
    assert cloud_event(event) == sent
