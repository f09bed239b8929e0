"""Every message of the API comes back from its document as it went in."""

import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from google.protobuf import message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bas
from bas.devices.v2 import devices_pb2
from chassis.store.documents import MessageCodec
from chassis.store.port import Key
from chassis.store.values import pack, unpack

KEY = Key("t", "c", "i")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**63 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$list", "$map", "a", ""]), inner, max_size=2)
    ),
    max_leaves=6,
)


def messages() -> Iterator[Any]:
    """All message types of the package `bas`, nested ones too."""
    for module in pkgutil.walk_packages(bas.__path__, "bas."):
        if module.name.endswith("_pb2"):
            for descriptor in import_module(module.name).DESCRIPTOR.message_types_by_name.values():
                yield from _nested(descriptor)


def _nested(descriptor: Any) -> Iterator[Any]:
    if not descriptor.GetOptions().map_entry:
        yield descriptor
    for inner in descriptor.nested_types:
        yield from _nested(inner)


@st.composite
def filled(draw: st.DrawFn, descriptor: Any, depth: int = 0) -> Any:
    """A message with some of its fields set."""
    message = message_factory.GetMessageClass(descriptor)()
    special = _well_known(draw, message)
    if special is not None:
        return special
    for field in descriptor.fields:
        if depth < 4 and draw(st.booleans()):
            _fill(draw, message, field, depth)
    return message


def _well_known(draw: st.DrawFn, message: Any) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        message.FromMicroseconds(draw(st.integers(-62135596800000000, 253402300799999999)))
    elif name == "google.protobuf.Duration":
        message.FromMicroseconds(draw(st.integers(-(10**17), 10**17)))
    elif name == "google.protobuf.Struct":
        message.update(draw(st.dictionaries(TEXT, JSON, max_size=3)))
    elif name == "google.protobuf.ListValue":
        message.extend(draw(st.lists(JSON, max_size=3)))
    elif name == "google.protobuf.Value":
        holder = struct_pb2.Struct()
        holder.update({"v": draw(JSON)})
        message.CopyFrom(holder.fields["v"])
    else:
        return None
    return message


def _fill(draw: st.DrawFn, message: Any, field: Any, depth: int) -> None:
    target = getattr(message, field.name)
    entry = field.message_type
    if field.is_repeated and entry is not None and entry.GetOptions().map_entry:
        for name in draw(st.lists(_scalar(entry.fields_by_name["key"]), max_size=3)):
            value = entry.fields_by_name["value"]
            if value.message_type is not None:
                target[name].CopyFrom(draw(filled(value.message_type, depth + 1)))
            else:
                target[name] = draw(_scalar(value))
    elif field.is_repeated:
        one = filled(entry, depth + 1) if entry is not None else _scalar(field)
        target.extend(draw(st.lists(one, max_size=3)))
    elif entry is not None:
        target.CopyFrom(draw(filled(entry, depth + 1)))
        target.SetInParent()
    else:
        setattr(message, field.name, draw(_scalar(field)))


def _scalar(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from(known) | st.just(max(known) + 77)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=5)
    return NUMBERS.get(field.cpp_type, TEXT)


@pytest.mark.parametrize("descriptor", list(messages()), ids=lambda descriptor: descriptor.full_name)
def test_every_message_round_trips(descriptor: Descriptor) -> None:
    codec: MessageCodec[Any] = MessageCodec(message_factory.GetMessageClass(descriptor))

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(filled(descriptor))
    def comes_back(message: Any) -> None:
        fields = codec.fields(message)
        body, _ = pack(KEY, fields)
        stored = unpack("t", "c", '["1",' + body).fields
        assert codec.message(stored) == message
        assert codec.fields(codec.message(stored)) == fields

    comes_back()


@given(JSON)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_json_values_round_trip(value: Any) -> None:
    codec = MessageCodec(struct_pb2.Struct)
    holder: Any = struct_pb2.Struct()
    holder.update({"v": value, "l": [[value], [[value]]]})
    plan = MessageCodec(struct_pb2.ListValue)
    assert codec.message(codec.fields(holder)) == holder
    items: Any = struct_pb2.ListValue()
    items.extend([value, [value]])
    body, _ = pack(KEY, plan.fields(items))
    assert plan.message(unpack("t", "c", '["1",' + body).fields) == items


def test_defaults_are_written_and_absence_is_not() -> None:
    codec = MessageCodec(devices_pb2.Device)
    fields = codec.fields(devices_pb2.Device(device_id="d"))
    assert fields["status"] == "DEVICE_STATUS_UNSPECIFIED"
    assert (fields["display_name"], fields["labels"]) == ("", {})
    assert "last_seen_time" not in fields


def test_what_is_set_to_nothing_is_set() -> None:
    codec = MessageCodec(devices_pb2.Device)
    device = devices_pb2.Device(create_time=timestamp_pb2.Timestamp())
    assert codec.fields(device)["create_time"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert codec.message(codec.fields(device)).HasField("create_time")


def test_names_of_others_are_left_out_and_nanoseconds_cut_off() -> None:
    codec = MessageCodec(devices_pb2.Device)
    device = devices_pb2.Device(create_time=timestamp_pb2.Timestamp(seconds=1, nanos=1999))
    fields = {**codec.fields(device), "shard": 3}
    assert codec.message(fields).create_time == timestamp_pb2.Timestamp(seconds=1, nanos=1000)
