"""Update masks on the resources of the API."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from bas.devices.v2.devices_pb2 import Device, DeviceStatus, Reading, Telemetry
from bas.devices.v2.devices_service_pb2 import CreateDeviceRequest
from chassis.api.masks import apply_update
from chassis.errors import ApiError, Code

CURRENT = Device(
    device_id="d1",
    display_name="Boiler 7",
    type="boiler",
    labels={"site": "north", "env": "prod"},
    metadata={"a": "1"},
    status=DeviceStatus.DEVICE_STATUS_ONLINE,
    status_reason="kept",
)


def updated(patch: dict[str, Any], *paths: str, **options: Any) -> Device:
    before, given = Device(), Device(**patch)
    before.CopyFrom(CURRENT)
    sent = given.SerializeToString(deterministic=True)
    result = apply_update(before, given, FieldMask(paths=paths) if paths else None, **options)
    assert before == CURRENT
    assert given.SerializeToString(deterministic=True) == sent
    return result


def changed(**fields: Any) -> Device:
    device: Any = Device()
    device.CopyFrom(CURRENT)
    for name, value in fields.items():
        device.ClearField(name)
        device.MergeFrom(Device(**{name: value}))
    made: Device = device
    return made


@pytest.mark.parametrize(
    ("patch", "paths", "expected"),
    [
        ({"display_name": "B8"}, (), changed(display_name="B8")),
        ({"display_name": "B8", "type": "pump"}, ("display_name",), changed(display_name="B8")),
        ({}, ("display_name",), changed(display_name="")),
        ({}, (), CURRENT),
        ({"labels": {"x": "1"}}, ("labels",), changed(labels={"x": "1"})),
        ({"labels": {"x": "1"}}, (), changed(labels={"x": "1"})),
        ({}, ("labels",), changed(labels={})),
        ({"labels": {"env": "dev", "x": "1"}}, ("labels.env",), changed(labels={"site": "north", "env": "dev"})),
        ({}, ("labels.env",), changed(labels={"site": "north"})),
        ({}, ("labels.none",), CURRENT),
        ({"labels": {"x": "1"}}, ("labels", "labels.x"), changed(labels={"x": "1"})),
        ({"type": "pump"}, ("*",), changed(display_name="", type="pump", labels={}, metadata={})),
        ({"device_id": "d1", "type": "pump"}, (), changed(type="pump")),
        ({"device_id": "d1", "type": "pump"}, ("device_id", "type"), changed(type="pump")),
        ({"etag": "x", "type": "pump"}, ("etag", "type"), changed(type="pump")),
        ({"etag": "x", "status": 4, "status_reason": "no", "type": "pump"}, (), changed(type="pump")),
    ],
)
def test_takes_what_the_mask_names(patch: dict[str, Any], paths: tuple[str, ...], expected: Device) -> None:
    assert updated(patch, *paths) == expected


@pytest.mark.parametrize(
    ("patch", "paths", "field", "words"),
    [
        ({}, ("display_nam",), "update_mask", "did you mean display_name?"),
        ({}, ("displayName",), "update_mask", "did you mean display_name?"),
        ({}, ("",), "update_mask", "does not exist"),
        ({}, ("type.",), "update_mask", "no fields of its own"),
        ({}, ("type.x",), "update_mask", "no fields of its own"),
        ({}, ("labels.a.b",), "update_mask", "name the whole map"),
        ({}, ("labels.",), "update_mask", "name the whole map"),
        ({}, ("status",), "update_mask", "output only"),
        ({}, ("create_time.seconds",), "update_mask", "output only"),
        ({}, ("*", "type"), "update_mask", "stands alone"),
        ({"device_id": "d2"}, (), "device.device_id", "cannot be changed"),
        ({"device_id": "d2"}, ("*",), "device.device_id", "cannot be changed"),
        ({}, ("device_id",), "device.device_id", "cannot be changed"),
    ],
)
def test_refuses_by_name(patch: dict[str, Any], paths: tuple[str, ...], field: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        updated(patch, *paths)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == [field]
    assert words in caught.value.message


def test_a_service_can_say_more_than_the_descriptor() -> None:
    with pytest.raises(ApiError, match=r"device\.type"):
        updated({"type": "pump"}, immutable=frozenset({"type"}))
    with pytest.raises(ApiError, match="output only"):
        updated({}, "type", output_only=frozenset({"type"}))
    assert updated({"type": "pump"}, "type", ignored=frozenset({"type"})) == CURRENT


def test_paths_into_messages() -> None:
    """On types of the pool that have messages within messages."""
    current = Telemetry(readings={"t": Reading(double_value=1, unit="Cel")})
    patch = Telemetry(readings={"t": Reading(double_value=2)})
    assert apply_update(current, patch, FieldMask(paths=["readings.t"])).readings["t"] == Reading(double_value=2)
    reading = Reading(double_value=1)
    reading.time.seconds = 5
    assert apply_update(reading, Reading(), FieldMask(paths=["time"])) == Reading(double_value=1)
    moved = apply_update(reading, Reading(string_value="x"), FieldMask(paths=["string_value"]))
    assert moved.WhichOneof("value") == "string_value"
    with pytest.raises(ApiError, match="no fields of its own"):
        apply_update(reading, Reading(), FieldMask(paths=["time.seconds"]))


def test_output_only_fields_inside_a_message_that_is_replaced_stay() -> None:
    current = CreateDeviceRequest(device=CURRENT, request_id="r")
    patch = CreateDeviceRequest(device=Device(device_id="d1", type="pump", status=DeviceStatus.DEVICE_STATUS_DISABLED))
    result = apply_update(current, patch, FieldMask(paths=["device"]))
    assert result.device == Device(device_id="d1", type="pump", status=CURRENT.status, status_reason="kept")
    nested = apply_update(current, patch, FieldMask(paths=["device.type", "device.labels.env"]))
    assert nested.device == changed(type="pump", labels={"site": "north"})
    assert nested.request_id == "r"
    with pytest.raises(ApiError, match=r"did you mean device\.type\?"):
        apply_update(current, patch, FieldMask(paths=["device.tpe"]))
    empty = CreateDeviceRequest()
    assert not apply_update(empty, empty, FieldMask(paths=["device.type"])).HasField("device")


words = st.sampled_from(["labels", "type", "status", "display_name", "create_time", "site", "*", "", "x", "etag"])


@given(st.lists(st.lists(words, max_size=4).map(".".join) | st.text(max_size=20), max_size=4))
def test_any_mask_is_applied_or_refused_and_never_touches_what_is_output_only(paths: list[str]) -> None:
    try:
        result = updated({"labels": {"x": "1"}, "type": "pump"}, *paths)
    except ApiError:
        return
    assert (result.device_id, result.status, result.status_reason) == ("d1", CURRENT.status, "kept")
