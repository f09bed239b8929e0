"""The codec against `google.protobuf.json_format`, over every message of the API and of the test API, both ways."""

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.module import load_schema
from gateway.transcoding.codec import BadValue, Codec, load_codec
from tests.unit.gateway.shapes import Shapes

_DEPTH = 3
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}
_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
_MASK_PATHS = st.lists(st.from_regex(r"[a-z]{1,4}(_[a-z]{1,3})?(\.[a-z]{1,3})?", fullmatch=True), max_size=3)
_LARGEST = 3.4028234e38
"""Short of the largest of single precision: its shortest text is a little more than it is, and the codec's library refuses
that. No message of the API has a field of this precision."""


def _plain(number: float) -> float:
    """The one NaN that has a JSON form, for any of them."""
    return math.nan if math.isnan(number) else number


_FLOATS = st.floats().map(_plain) | st.integers(-5, 5).map(float)
_SINGLES = st.floats(width=32).map(_plain).filter(lambda number: math.isinf(number) or not abs(number) > _LARGEST)


@cache
def google_of(descriptors: bytes) -> "Google":
    """One pool for all examples: what is generated must not hang on which of many short-lived pools lies where."""
    return Google(descriptors)


class Google:
    """The google runtime's classes of a FileDescriptorSet, in a pool of their own."""

    def __init__(self, descriptors: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in FileDescriptorSet.FromString(descriptors).file:
            self._pool.Add(file)

    def __call__(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))


def value(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:  # noqa: PLR0911 - a table of kinds
    kind = field.cpp_type
    if kind in _INTEGERS:
        return draw(_INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return draw(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return draw(_SINGLES)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        known = sorted(field.enum_type.values_by_number)
        return draw(st.sampled_from([*known, max(known) + 1]))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.binary(max_size=6))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return draw(_TEXT)
    assert field.message_type is not None
    made = message_factory.GetMessageClass(field.message_type)()
    fill(draw, made, depth + 1)
    return made


def fill(draw: st.DrawFn, message: Any, depth: int = 0) -> None:
    """Set a drawn part of the fields to drawn values that have a JSON form."""
    descriptor: Descriptor = message.DESCRIPTOR
    name = descriptor.full_name
    if name == "google.protobuf.Timestamp":
        message.seconds = draw(st.integers(-62135596800, 253402300799))
        message.nanos = draw(st.sampled_from([0, 1, 5_000_000, 123_456_000, 999_999_999]))
    elif name == "google.protobuf.Duration":
        sign = draw(st.sampled_from([1, -1]))
        message.seconds = sign * draw(st.integers(0, 315576000000))
        message.nanos = sign * draw(st.sampled_from([0, 1, 500_000_000, 999_999_000]))
    elif name == "google.protobuf.FieldMask":
        message.paths.extend(draw(_MASK_PATHS))
    elif name in ("google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue"):
        leaf = st.none() | st.booleans() | st.integers(-(2**40), 2**40).map(float) | _TEXT
        tree = st.recursive(leaf, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2))
        wanted: dict[str, st.SearchStrategy[Any]] = {
            "Value": tree,
            "Struct": st.dictionaries(_TEXT, tree, max_size=2),
            "ListValue": st.lists(tree, max_size=2),
        }
        json_format.ParseDict(draw(wanted[descriptor.name]), message)
    else:
        for field in descriptor.fields:
            if (depth < _DEPTH or field.message_type is None) and draw(st.booleans()):
                fill_field(draw, message, field, depth)


def fill_field(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    held = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        keys, values = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for _ in range(draw(st.integers(0, 2))):
            key, made = value(draw, keys, depth), value(draw, values, depth)
            held[key].CopyFrom(made) if values.message_type is not None else held.__setitem__(key, made)
    elif field.is_repeated:
        held.extend(value(draw, field, depth) for _ in range(draw(st.integers(0, 2))))
    elif field.message_type is not None:
        held.CopyFrom(value(draw, field, depth))
    else:
        setattr(message, field.name, value(draw, field, depth))


def same(ours: Any, theirs: Any) -> bool:
    """Equal as JSON, numbers as numbers: `1.0` is `1`, and a float of single precision may be written longer."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-44)
    return bool(ours == theirs)


def check(codec: Codec, google: Google, name: str, data: st.DataObject) -> None:
    message = google(name)()
    data.draw(filled(message))
    wire = message.SerializeToString(deterministic=True)
    text = codec[name].from_binary(wire).json()
    ours = json.loads(text)
    theirs = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    assert same(ours, json.loads(json.dumps(theirs))), (text, theirs)
    back = google(name).FromString(codec[name].to_binary(ours))
    theirs_back = json_format.Parse(text, google(name)())
    assert back.SerializeToString(deterministic=True) == theirs_back.SerializeToString(deterministic=True)
    from_theirs = google(name).FromString(codec[name].to_binary(theirs))
    assert from_theirs.SerializeToString(deterministic=True) == wire


@st.composite
def filled(draw: st.DrawFn, message: Any) -> Any:
    fill(draw, message)
    return message


@cache
def api() -> tuple[Codec, Google]:
    return load_codec(load_schema().files), Google(resources.files("bas").joinpath("descriptors.binpb").read_bytes())


API_MESSAGES = sorted(name for name in load_schema().messages if name.startswith("bas."))


@pytest.mark.parametrize("name", API_MESSAGES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_message_of_the_api(name: str, data: st.DataObject) -> None:
    codec, google = api()
    check(codec, google, name, data)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_shape_of_field(shapes: Shapes, data: st.DataObject) -> None:
    check(shapes.codec, google_of(shapes.descriptors), "bas.shapes.v2.Shape", data)


def test_every_message_has_a_codec() -> None:
    codec, _ = api()
    assert {name for name in API_MESSAGES if name not in codec} == set()


DIFFERENCES = [
    ('{"colour":"1"}', 1, "json_format takes an enum's number as text"),
    ('{"colour":1.0}', 1, "json_format takes an enum's number with a fraction of zero"),
    ('{"real":true}', 1.0, "json_format takes a truth value for a number"),
    ('{"real":" 1"}', 1.0, "json_format takes spaces around a number in text"),
    ('{"real":"inf"}', math.inf, "json_format takes Python's names of what is not finite"),
]


@pytest.mark.parametrize(("text", "theirs", "_why"), DIFFERENCES)
def test_differences(shapes: Shapes, text: str, theirs: float, _why: str) -> None:
    """What json_format takes and the codec refuses, both on the strict side of the proto3 JSON specification."""
    parsed = json_format.Parse(text, shapes.google("bas.shapes.v2.Shape")())
    assert getattr(parsed, next(iter(json.loads(text)))) == theirs
    with pytest.raises(BadValue):
        shapes.codec["bas.shapes.v2.Shape"].to_binary(json.loads(text))


def test_bytes_that_are_no_message(shapes: Shapes) -> None:
    with pytest.raises(BadValue):
        shapes.codec["bas.shapes.v2.Shape"].from_binary(b"\xff\xff")
    with pytest.raises(BadValue):
        shapes.codec["bas.shapes.v2.Shape"].from_binary(b"\x0a\x01\xff").json()


def test_the_property_catches_a_codec_that_loses_a_field(shapes: Shapes) -> None:
    """The seeded bug: a codec for another message with the same first field."""
    google = Google(shapes.descriptors)
    message = google("bas.shapes.v2.Inner")(owner="o", depth=3)
    broken = shapes.codec["bas.shapes.v2.Shape"].from_binary(message.SerializeToString()[:3]).json()
    assert not same(json.loads(broken), json_format.MessageToDict(message))
