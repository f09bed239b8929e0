"""The RPCs of the release, their scopes, and the fields of their requests that name things: all read from descriptors."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bas.annotations.v2 import annotations_pb2
from chassis import policies
from chassis.auth.tokens import LEVELS, SERVICES, expand
from tests.isolation.deployment import specs

_NAMING: Final = (annotations_pb2.FORMAT_ID, annotations_pb2.FORMAT_EMAIL, annotations_pb2.FORMAT_TOKEN)


@cache
def methods() -> dict[str, MethodDescriptor]:
    """`DeviceService.GetDevice` → its descriptor, of every service with an implementation."""
    found: dict[str, MethodDescriptor] = {}
    for name in specs():
        file: Any = Default().FindFileByName(f"bas/{name}/v2/{name}_service.proto")
        for service in file.services_by_name.values():
            found |= {f"{service.name}.{method.name}": method for method in service.methods}
    return found


def takes(message: Message) -> MethodDescriptor:
    """The method whose request it is."""
    return next(method for method in methods().values() if method.input_type is message.DESCRIPTOR)


def lacking(method: MethodDescriptor) -> list[str]:
    """Every scope that is too weak for the method by itself, and none at all."""
    needed = policies.of_method(method).scope
    scopes = [f"{service}:{level}" for service in SERVICES for level in LEVELS]
    return ["", *(scope for scope in scopes if needed not in expand([scope]))]


def naming_fields(message: Descriptor, before: str = "") -> Iterator[tuple[str, str]]:
    """(path, name) of each field of a request that may name something: `device.device_id`; `[]` behind what is
    repeated. What only answers hold is left out."""
    for field in message.fields:
        if (
            _is_map(field)
            or field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        ):
            continue
        path = f"{before}{field.name}{'[]' if field.is_repeated else ''}"
        if field.message_type is not None:
            if field.message_type.full_name.startswith("bas."):
                yield from naming_fields(field.message_type, f"{path}.")
        elif field.name == "token" or field.GetOptions().Extensions[annotations_pb2.rules].format in _NAMING:
            yield path, field.name


def with_value(request: Message, path: str, value: str) -> Message:
    """A copy with a field set: in the first of several messages, or as one value more."""
    copy = type(request)()
    copy.CopyFrom(request)
    holder: Any = copy
    *holders, last = path.split(".")
    for name in holders:
        holder = getattr(holder, name.removesuffix("[]"))
        if name.endswith("[]"):
            holder = holder[0]
    if last.endswith("[]"):
        getattr(holder, last.removesuffix("[]")).append(value)
    else:
        setattr(holder, last, value)
    return copy


def has(method: MethodDescriptor, name: str) -> bool:
    return name in method.input_type.fields_by_name


def empty_request(method: MethodDescriptor) -> Message:
    return GetMessageClass(method.input_type)()


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
