"""What a caller may set on a device, how its status moves, and what is derived from it."""

from datetime import UTC, datetime
from typing import TypeAlias

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bas.devices.v2.devices_pb2 import (
    DEVICE_STATUS_DISABLED,
    DEVICE_STATUS_NEVER_SEEN,
    DEVICE_STATUS_OFFLINE,
    DEVICE_STATUS_ONLINE,
    DEVICE_STATUS_UNSPECIFIED,
    Device,
    DeviceStatus,
)
from chassis.errors import ApiError, Code
from services.devices import device as rules

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

Status: TypeAlias = DeviceStatus.ValueType


@pytest.mark.parametrize("wanted", [DEVICE_STATUS_NEVER_SEEN, DEVICE_STATUS_UNSPECIFIED, 99])
@pytest.mark.parametrize("current", rules.STATUSES)
def test_nobody_sets_what_only_time_can_say(current: Status, wanted: Status) -> None:
    with pytest.raises(ApiError) as refused:
        rules.settable("d1", current, wanted)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.violations[0].field == "status"


@pytest.mark.parametrize("wanted", [DEVICE_STATUS_ONLINE, DEVICE_STATUS_OFFLINE, DEVICE_STATUS_DISABLED])
@pytest.mark.parametrize("current", rules.STATUSES)
def test_the_status_table(current: Status, wanted: Status) -> None:
    refused = current == DEVICE_STATUS_DISABLED and wanted == DEVICE_STATUS_ONLINE
    if not refused:
        rules.settable("d1", current, wanted)
        return
    with pytest.raises(ApiError) as failure:
        rules.settable("d1", current, wanted)
    assert failure.value.reason == "DEVICE_DISABLED"
    assert failure.value.code is Code.FAILED_PRECONDITION


def test_a_disabled_device_is_moved_neither_by_heartbeats_nor_by_silence() -> None:
    assert DEVICE_STATUS_DISABLED not in rules.BY_HEARTBEAT | rules.BY_LAPSE


def test_a_registered_device_takes_only_the_callers_fields() -> None:
    given_device = Device(
        device_id="other",
        display_name="Boiler",
        labels={"site": "north"},
        status=DEVICE_STATUS_ONLINE,
        status_reason="mine",
        etag="mine",
    )
    given_device.create_time.FromJsonString("1999-01-01T00:00:00Z")
    made = rules.registered("d1", given_device, NOW)
    assert made.device_id == "d1"
    assert made.display_name == "Boiler"
    assert dict(made.labels) == {"site": "north"}
    assert made.status == DEVICE_STATUS_NEVER_SEEN
    assert not made.status_reason
    assert not made.etag
    assert not made.HasField("last_seen_time")
    assert made.create_time.ToDatetime(UTC) == made.update_time.ToDatetime(UTC) == NOW


def test_the_status_time_moves_only_with_the_status() -> None:
    device = rules.registered("d1", Device(), NOW)
    later = NOW.replace(year=2027)
    rules.turn(device, DEVICE_STATUS_NEVER_SEEN, "why", later)
    assert device.status_time.ToDatetime(UTC) == NOW
    assert device.update_time.ToDatetime(UTC) == later
    rules.turn(device, DEVICE_STATUS_DISABLED, "", later)
    assert device.status_time.ToDatetime(UTC) == later
    assert not device.status_reason


def test_times_that_were_shown_do_not_go_back() -> None:
    device = rules.registered("d1", Device(), NOW)
    rules.turn(device, DEVICE_STATUS_ONLINE, "", NOW.replace(microsecond=0))
    assert device.update_time.ToDatetime(UTC) == device.status_time.ToDatetime(UTC) == NOW
    changed = rules.updated(device, Device(type="x"), FieldMask(), NOW.replace(year=2020))
    assert changed is not None
    assert changed.update_time.ToDatetime(UTC) == NOW


def test_being_seen_is_told_from_a_change() -> None:
    before = rules.registered("d1", Device(), NOW)
    seen = rules.registered("d1", Device(etag="x"), NOW)
    seen.last_seen_time.FromDatetime(NOW)
    assert rules.same_but_for_last_seen(before, seen)
    assert rules.same_but_for_last_seen(seen, before)
    rules.turn(seen, DEVICE_STATUS_ONLINE, "", NOW)
    assert not rules.same_but_for_last_seen(before, seen)


def test_an_update_that_changes_nothing_is_none() -> None:
    device = rules.registered("d1", Device(type="x"), NOW)
    assert rules.updated(device, Device(type="x"), FieldMask(paths=["type"]), NOW) is None


def test_duplicates_are_the_later_ones() -> None:
    assert rules.duplicates(["a", "", "b", "a", "", "a"]) == {3, 5}
