"""Effects that are events: what they say, what they hide, and ids that are the same again."""

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from bas.devices.v2.devices_pb2 import Device
from bas.events.v2.events_pb2 import CloudEvent
from bas.sessions.v2.sessions_service_pb2 import CreateSessionResponse
from bas.users.v2.users_pb2 import User
from chassis.api.validation import compile_validator
from chassis.outbox.effects import derived_id, event, message_data
from chassis.outbox.port import EVENT

WHEN = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_an_event_says_what_happened_to_what() -> None:
    device = Device(device_id="d1", display_name="Door", etag="e")
    effect = event("id-1", "acme", "/bas/devices", "device.created", "devices/d1", WHEN, message_data(device))
    assert (effect.id, effect.kind, effect.tenant) == ("id-1", EVENT, "acme")
    assert "devices/d1" in effect.key
    made = CloudEvent.FromString(effect.payload)
    assert json_format.MessageToDict(made) == {
        "id": "id-1",
        "source": "/bas/devices",
        "specversion": "1.0",
        "type": "device.created",
        "subject": "devices/d1",
        "time": "2026-05-01T12:00:00.123456Z",
        "datacontenttype": "application/json",
        "partitionkey": "devices/d1",
        "data": {"deviceId": "d1", "displayName": "Door", "etag": "e"},
    }
    compile_validator(CloudEvent.DESCRIPTOR)(made)


@given(data=st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_data_arrives_as_it_was_given(data: dict[str, object]) -> None:
    effect = event("i", "acme", "/s", "t", "x", WHEN, data)
    assert json_format.MessageToDict(CloudEvent.FromString(effect.payload).data) == data


def test_what_is_not_json_is_no_data() -> None:
    with pytest.raises(TypeError):
        event("i", "acme", "/s", "t", "x", WHEN, {"when": WHEN})


def test_secrets_are_hidden_and_personal_data_unless_asked_for() -> None:
    response = CreateSessionResponse(token="secret")
    response.session.session_id = "s1"
    shown = message_data(response, personal=True)
    assert shown == {"session": {"sessionId": "s1"}}
    assert response.token == "secret"
    user = User(user_id="u1", email="a@example.org")
    assert message_data(user) == {"userId": "u1"}
    assert message_data(user, personal=True) == {"userId": "u1", "email": "a@example.org"}


def test_derived_ids_are_the_same_again_and_tell_names_apart() -> None:
    assert derived_id("acme", "devices/d1") == derived_id("acme", "devices/d1")
    assert len({derived_id("ab", "c"), derived_id("a", "bc"), derived_id("abc"), derived_id("abc", "")}) == 4
