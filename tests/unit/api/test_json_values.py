"""JSON in requests, looked at as a whole, is judged as it is field by field."""

from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import PublishEventsRequest
from chassis.api import validation
from chassis.api.validation import Validator, compile_validator
from chassis.errors import ApiError, Violation


def _by_fields() -> Validator:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validation, "SOUND", {})
        return compile_validator(PublishEventsRequest.DESCRIPTOR)


WHOLE, BY_FIELDS = compile_validator(PublishEventsRequest.DESCRIPTOR), _by_fields()

_leaves = st.one_of(
    st.just(Value()),
    st.sampled_from([0, 0, 0, 5]).map(lambda number: Value(null_value=number)),  # type: ignore[arg-type]  # 5 is no null
    st.floats().map(lambda number: Value(number_value=number)),
    st.text(max_size=4).map(lambda text: Value(string_value=text)),
    st.booleans().map(lambda truth: Value(bool_value=truth)),
)


def _deeper(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    lists = st.lists(values, max_size=3).map(lambda items: Value(list_value=ListValue(values=items)))
    maps = st.dictionaries(st.sampled_from(["", "a", "b", "\n"]), values, max_size=3)
    return lists | maps.map(lambda fields: Value(struct_value=Struct(fields=fields)))


def _told(validate: Validator, request: Any) -> tuple[Violation, ...]:
    try:
        validate(request)
    except ApiError as refused:
        return refused.violations
    return ()


@settings(max_examples=200)
@given(st.recursive(_leaves, _deeper, max_leaves=8))
def test_the_same_is_found(data: Value) -> None:
    request = PublishEventsRequest(events=[CloudEvent(id="1", source="/s", type="t", data=data)])
    # The entries of a map come in no order.
    assert sorted(map(str, _told(WHOLE, request))) == sorted(map(str, _told(BY_FIELDS, request)))


@pytest.mark.parametrize(
    "wrong",
    [
        Value(number_value=float("nan")),
        Value(null_value=7),  # type: ignore[arg-type]  # which is not
        Value(struct_value=Struct(fields={"": Value(bool_value=True)})),
    ],
)
def test_what_is_wrong_is_found_where_it_is(wrong: Value) -> None:
    data = Value(struct_value=Struct(fields={"a": Value(list_value=ListValue(values=[Value(bool_value=True), wrong]))}))
    (found,) = _told(WHOLE, PublishEventsRequest(events=[CloudEvent(id="1", source="/s", type="t", data=data)]))
    assert found.field.startswith('events[0].data.struct_value.fields["a"].list_value.values[1].')


def test_a_look_that_passes_everything_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded bug."""
    monkeypatch.setattr(validation, "SOUND", {"google.protobuf.Value": lambda _: True})
    blind = compile_validator(PublishEventsRequest.DESCRIPTOR)
    wrong = Value(number_value=float("inf"))
    request = PublishEventsRequest(events=[CloudEvent(id="1", source="/s", type="t", data=wrong)])
    assert _told(WHOLE, request)
    assert not _told(blind, request)
