"""Happenings as events: ids of their own, who asked, and a size that the events service takes."""

import os
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bas.devices.v2.devices_pb2 import Device
from bas.events.v2.events_pb2 import CloudEvent
from chassis import context
from chassis.api.validation import compile_validator
from chassis.clock import FakeClock
from chassis.context import Call, Caller
from chassis.outbox.announcements import MOST_BYTES, Announcements, Happening, changed_paths
from chassis.outbox.effects import message_data
from chassis.outbox.port import EVENT, NoOutbox
from tests.support.outbox import RecordingOutbox, told_by

CLOCK = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


def happening(type_: str = "device.created", **resource: object) -> Happening:
    return Happening("acme", type_, "devices/d1", "device", {"deviceId": "d1", **resource}, {"reason": "why"})


def announced(*happenings: Happening) -> tuple[Announcements, RecordingOutbox]:
    outbox = RecordingOutbox([EVENT])
    made = Announcements("devices", outbox, CLOCK, os.urandom)
    assert len(made.writes(happenings)) == len(happenings)
    return made, outbox


def test_a_happening_is_an_event_of_the_service() -> None:
    _, outbox = announced(happening(), happening("device.online"))
    first, second = outbox.handed
    told = told_by(first)
    assert (told.source, told.type, told.subject) == ("/bas/devices", "device.created", "devices/d1")
    assert first.key == second.key
    assert first.id != second.id
    assert CloudEvent.FromString(first.payload).time.ToDatetime(UTC) == CLOCK.now()
    assert told.data == {"device": {"deviceId": "d1"}, "reason": "why", "actor": "service:devices"}


def test_it_says_who_asked_and_in_which_request() -> None:
    caller = Caller("acme", "ada", frozenset(), 4e9, "s1")
    token = context.enter(Call("test", "r7", None, caller))
    try:
        _, outbox = announced(happening())
    finally:
        context.leave(token)
    data = told_by(outbox.handed[0]).data
    assert (data["actor"], data["requestId"]) == ("ada", "r7")


def test_nothing_is_no_write_and_asks_nobody() -> None:
    announcements, outbox = announced()
    assert announcements.writes([]) == []
    assert outbox.handed == []


def test_whether_a_kind_is_delivered_is_the_outboxes_to_say() -> None:
    for outbox, kept in ((RecordingOutbox(["revoke"]), True), (RecordingOutbox([EVENT]), False), (NoOutbox(), False)):
        announcements = Announcements("users", outbox, CLOCK, os.urandom)
        assert announcements.keeps(announcements.effect("revoke", "acme", "users/u1", b"u1")) is kept


def texts(least: int, most: int) -> st.SearchStrategy[dict[str, str]]:
    return st.builds(
        lambda entries, size: {f"{number:064d}": "ü" * (size // 2) for number in range(entries)},
        st.integers(least, most),
        st.integers(0, 1024),
    )


@given(texts(0, 64), texts(0, 64))
def test_an_event_is_never_larger_than_the_events_service_takes(
    labels: dict[str, str], metadata: dict[str, str]
) -> None:
    device = Device(device_id="d1", display_name="ü" * 256, labels=labels, metadata=metadata)
    told = Happening("acme", "device.created", "devices/d1", "device", message_data(device), {"reason": "ü" * 256})
    _, outbox = announced(told)
    (effect,) = outbox.handed
    event = CloudEvent.FromString(effect.payload)
    assert len(effect.payload) <= MOST_BYTES
    compile_validator(CloudEvent.DESCRIPTOR)(event)
    data = told_by(effect).data
    shown, left_out = data["device"], data.get("leftOut", [])
    assert shown["deviceId"] == "d1"
    for name, given_ in (("labels", labels), ("metadata", metadata)):
        assert shown.get(name, {}) == ({} if name in left_out else given_)
    assert not left_out or device.ByteSize() > MOST_BYTES / 3


def test_paths_are_the_names_of_json_in_the_order_of_the_message() -> None:
    one = Device(device_id="d1", labels={"a": "b"})
    other = Device(device_id="d1", labels={"a": "c"}, display_name="x", etag="e")
    other.last_seen_time.FromSeconds(1)
    assert changed_paths(one, other, frozenset({"etag"})) == ["displayName", "labels", "lastSeenTime"]
    assert changed_paths(one, one, frozenset()) == []


def test_presence_alone_is_a_change() -> None:
    one, other = Device(), Device()
    other.last_seen_time.SetInParent()
    assert changed_paths(one, other, frozenset()) == ["lastSeenTime"]
