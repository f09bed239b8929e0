"""What is told of a device's changes."""

from datetime import UTC, datetime, timedelta

import pytest

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    Device,
    DeviceStatus,
)
from services.devices import device as rules
from services.devices import effects

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)


def device(status: DeviceStatus.ValueType = DEVICE_STATUS_ONLINE) -> Device:
    made = rules.registered("d1", Device(display_name="Boiler", labels={"site": "north"}), NOW)
    made.status = status
    made.etag = "e1"
    return made


def copy(of: Device) -> Device:
    made = Device()
    made.CopyFrom(of)
    return made


def turned(before: Device, status: DeviceStatus.ValueType, reason: str = "") -> Device:
    after = copy(before)
    rules.turn(after, status, reason, LATER)
    return after


def test_a_created_device_is_told_as_it_is_shown() -> None:
    told = effects.created("acme", device())
    assert (told.tenant, told.type, told.subject, told.noun) == ("acme", "device.created", "devices/d1", "device")
    assert told.resource["deviceId"] == "d1"
    assert told.resource["displayName"] == "Boiler"
    assert told.resource["labels"] == {"site": "north"}
    assert "etag" not in told.resource


def test_of_a_deleted_device_only_the_id_is_told() -> None:
    told = effects.deleted("acme", "d1")
    assert (told.type, told.subject, told.resource) == ("device.deleted", "devices/d1", {"deviceId": "d1"})


NEVER, ON, OFF, OUT = DEVICE_STATUS_NEVER_SEEN, DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED


@pytest.mark.parametrize(
    ("before", "after", "type_"),
    [
        (NEVER, ON, "device.online"),
        (OFF, ON, "device.online"),
        (ON, OFF, "device.offline"),
        (NEVER, OFF, "device.offline"),
        (ON, OUT, "device.disabled"),
        (NEVER, OUT, "device.disabled"),
        (OUT, OFF, "device.enabled"),
    ],
)
def test_a_status_is_told_by_its_name_and_where_it_came_from(
    before: DeviceStatus.ValueType, after: DeviceStatus.ValueType, type_: str
) -> None:
    (told,) = effects.changed("acme", device(before), turned(device(before), after, "because"))
    assert told.type == type_
    assert told.more == {"previousStatus": DeviceStatus.Name(before), "reason": "because"}
    assert told.resource["status"] == DeviceStatus.Name(after)


def test_every_change_of_status_that_a_caller_can_make_has_an_event() -> None:
    for before, wanted in rules.BY_CALLER.items():
        for after in wanted - {before}:
            (told,) = effects.changed("acme", device(before), turned(device(before), after))
            assert told.type.startswith("device.")


def test_what_changed_is_told_by_its_path() -> None:
    after = copy(device())
    after.display_name = ""
    after.labels["floor"] = "2"
    after.update_time.FromDatetime(LATER)
    (told,) = effects.changed("acme", device(), after)
    assert told.type == "device.updated"
    assert told.more == {"changedPaths": ["displayName", "labels"]}


def test_another_reason_for_the_same_status_is_an_update() -> None:
    (told,) = effects.changed("acme", device(), turned(device(), DEVICE_STATUS_ONLINE, "by hand"))
    assert told.more == {"changedPaths": ["statusReason"]}


def test_a_change_of_both_is_told_as_both() -> None:
    after = turned(device(), DEVICE_STATUS_OFFLINE)
    after.type = "boiler"
    assert [told.type for told in effects.changed("acme", device(), after)] == ["device.updated", "device.offline"]


def test_that_it_was_seen_or_written_is_told_to_nobody() -> None:
    after = turned(device(), DEVICE_STATUS_ONLINE)
    after.last_seen_time.FromDatetime(LATER)
    after.etag = "e2"
    assert after != device()
    assert effects.changed("acme", device(), after) == []
