"""Field rules: each rule of each request of the API, at its limit and one beyond it; and how violations are told."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from bas.annotations.v2 import annotations_pb2 as annotations
from bas.devices.v2 import devices_pb2, devices_service_pb2
from bas.events.v2 import events_pb2, events_service_pb2
from bas.users.v2 import users_service_pb2
from chassis.api import validation
from chassis.api.formats import Lengths, text_check
from chassis.api.validation import MAX_VIOLATIONS, Validator, compile_validator
from chassis.errors import ApiError, Code, Violation
from tests.unit.api.rule_cases import BAD_TEXT, GOOD_TEXT, cases, request_types

REQUESTS = request_types()
BATCH = compile_validator(devices_service_pb2.BatchCreateDevicesRequest.DESCRIPTOR)
PUBLISH = compile_validator(events_service_pb2.PublishEventsRequest.DESCRIPTOR)
CREATE_REQUEST = devices_service_pb2.CreateDeviceRequest.DESCRIPTOR
CREATE = compile_validator(CREATE_REQUEST)


def violations(validate: Validator, request: Message) -> tuple[Violation, ...]:
    try:
        validate(request)
    except ApiError as refused:
        return refused.violations if refused.code is Code.INVALID_ARGUMENT else ()
    return ()


def wrong_answers(validate: Validator, descriptor: Descriptor) -> list[str]:
    """The cases of a request that are answered otherwise than the rules say."""
    wrong = []
    for case in cases(descriptor):
        found = [violation.field for violation in violations(validate, case.request)]
        if case.field is None:
            right = not found
        elif case.field.endswith("["):  # an entry whose key is shown as far as it can be
            right = any(field.startswith(case.field) for field in found)
        else:
            right = case.field in found
        if not right:
            wrong.append(f"{case.label}: expected {case.field}, found {found}")
    return wrong


@pytest.mark.parametrize("descriptor", REQUESTS, ids=lambda descriptor: descriptor.full_name)
def test_every_rule_at_its_limit_and_one_beyond(descriptor: Descriptor) -> None:
    assert not wrong_answers(compile_validator(descriptor), descriptor)


def test_a_length_that_is_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded bug: one character more, and one less, than the rule says."""
    for off in (-1, 1):
        with monkeypatch.context() as patched:
            patched.setattr(validation, "Lengths", lambda least, most, in_bytes=0: Lengths(least, most + off, in_bytes))  # noqa: B023
            validate = compile_validator(CREATE_REQUEST)
        assert any("long" in wrong for wrong in wrong_answers(validate, CREATE_REQUEST))


def test_the_cases_cover_what_the_api_uses() -> None:
    """A rule or format that no request has, or that no case covers, would pass the test above unseen."""
    labels = {case.label.split(" ", 1)[-1] for descriptor in REQUESTS for case in cases(descriptor)}
    assert {"left out", "one too many", "too long", "below the least", "none of the enum", "NaN"} <= labels
    assert len(REQUESTS) >= 11


def device(**fields: object) -> devices_pb2.Device:
    return devices_pb2.Device(**fields)  # type: ignore[arg-type]  # test data, by name


def event(**fields: object) -> events_pb2.CloudEvent:
    return events_pb2.CloudEvent(**({"id": "e", "source": "s", "type": "t"} | fields))  # type: ignore[arg-type]  # as above


def test_paths_lead_to_the_item_and_the_entry() -> None:
    request = events_service_pb2.PublishEventsRequest(events=[event(), event(), event(subject="\x85")])
    request.events[1].extensions["ok"].string_value = "1"
    request.events[1].extensions["k\x00"].string_value = "v"
    found = violations(PUBLISH, request)
    assert [violation.field for violation in found] == ['events[1].extensions["k\\u0000"]', "events[2].subject"]
    assert found[1].description == "must not have control characters; there is U+0085 at position 1"


def test_all_that_is_wrong_is_told_at_once_up_to_a_bound() -> None:
    request = devices_service_pb2.CreateDeviceRequest(device=device(device_id="a b", type="\x00"), request_id="/")
    assert [violation.field for violation in violations(CREATE, request)] == [
        "device.device_id",
        "device.type",
        "request_id",
    ]
    many = events_service_pb2.PublishEventsRequest(events=[event(type="a b")] * 100)
    assert len(violations(PUBLISH, many)) == MAX_VIOLATIONS


def test_items_that_are_answered_one_by_one_do_not_refuse_the_request() -> None:
    request = devices_service_pb2.BatchCreateDevicesRequest(devices=[device(device_id="a b")] * 500)
    assert not violations(BATCH, request)
    request.devices.append(device())
    assert [violation.field for violation in violations(BATCH, request)] == ["devices"]


@pytest.mark.parametrize(
    ("paths", "given", "field"),
    [
        ([], {"display_name": "Ada"}, None),
        (["display_name"], {}, None),
        (["email"], {"email": "ada@example.com"}, None),
        (["email"], {"display_name": "Ada"}, "user.email"),
        (["display_name", "*"], {"display_name": "Ada"}, "user.email"),
        (["*"], {"user_id": ""}, "user.user_id"),
    ],
)
def test_an_update_needs_the_id_and_what_the_mask_would_clear(
    paths: list[str], given: dict[str, str], field: str | None
) -> None:
    request = users_service_pb2.UpdateUserRequest(user={"user_id": "u1"} | given)  # type: ignore[arg-type]
    request.update_mask.paths.extend(paths)
    found = violations(compile_validator(request.DESCRIPTOR), request)
    assert (found[0].field if found else None) == field


def test_an_update_without_a_resource_is_told_once() -> None:
    request = users_service_pb2.UpdateUserRequest()
    request.update_mask.paths.append("*")
    assert violations(compile_validator(request.DESCRIPTOR), request) == (Violation("user", "is required"),)


def test_an_update_without_its_id_is_found() -> None:
    """The seeded bug: a validator that takes an update's resource for a create's."""

    class Careless(validation._Compiler):
        def request(self, descriptor: Any) -> Any:
            return self.message(descriptor)

    request = devices_service_pb2.UpdateDeviceRequest.DESCRIPTOR
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validation, "_Compiler", Careless)
        validate = compile_validator(request)
    assert any("device_id left out" in wrong for wrong in wrong_answers(validate, request))


def test_output_only_fields_are_ignored_with_everything_in_them() -> None:
    given = device(status=99, status_reason="\x00" * 9999)
    given.create_time.nanos = -5
    assert not violations(CREATE, devices_service_pb2.CreateDeviceRequest(device=given))


def test_unknown_fields_are_ignored() -> None:
    request = devices_service_pb2.GetDeviceRequest.FromString(b"\x0a\x02d1" + b"\xfa\x06\x03abc")
    assert not violations(compile_validator(request.DESCRIPTOR), request)


def test_a_refusal_never_repeats_the_text() -> None:
    request = devices_service_pb2.CreateDeviceRequest(device=device(device_id="secret " * 100))
    assert "secret" not in str(violations(CREATE, request))


def test_a_long_key_is_cut_in_the_path() -> None:
    request = devices_service_pb2.CreateDeviceRequest(device=device(labels={"k" * 100000: ""}))
    assert all(len(violation.field) < 100 for violation in violations(CREATE, request))


def test_nothing_is_changed() -> None:
    request = devices_service_pb2.CreateDeviceRequest(device=device(display_name="e\u0301", status=2))
    before = request.SerializeToString()
    violations(CREATE, request)
    assert request.SerializeToString() == before


def test_every_format_has_a_check() -> None:
    for number in annotations.Format.values():
        check = text_check(number, Lengths())
        assert [text for text in GOOD_TEXT[number] if check(text)] == []
        assert [text for text in BAD_TEXT[number] if not check(text)] == []
    with pytest.raises(ValueError, match="has no check"):
        text_check(99, Lengths())  # type: ignore[arg-type]  # what a newer annotations.proto would bring


@given(st.text(max_size=8) | st.text("aé\u0301\x1f ", max_size=8))
def test_text_is_what_the_words_say(text: str) -> None:
    import unicodedata  # noqa: PLC0415 - the oracle, beside what it judges

    well = unicodedata.normalize("NFC", text) == text and not any(unicodedata.category(one) == "Cc" for one in text)
    assert (text_check(annotations.FORMAT_TEXT, Lengths())(text) is None) == well


@given(st.text(max_size=8), st.integers(0, 12))
def test_bytes_are_counted_as_utf8(text: str, most: int) -> None:
    well = most == 0 or len(text.encode()) <= most
    assert (text_check(annotations.FORMAT_UNSPECIFIED, Lengths(most_bytes=most))(text) is None) == well
