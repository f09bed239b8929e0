"""Effects that are events: a CloudEvent of a change, ready for the outbox."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from bas.annotations.v2 import annotations_pb2
from bas.events.v2.events_pb2 import CloudEvent
from chassis.outbox.port import EVENT, Effect

_ID_BYTES: Final = 16


def derived_id(*names: str) -> str:
    """An id that is always the same for the same names, 32 hexadecimal digits, for a change that may be decided twice.

    Name the tenant, the resource, what happened and which time it was: `derived_id("acme", "devices/d1",
    "device.deleted", etag)`. Any texts; another split of the same letters is another id.
    """
    told = blake2b(digest_size=_ID_BYTES)
    for name in names:
        encoded = name.encode()
        told.update(len(encoded).to_bytes(4, "big") + encoded)
    return told.hexdigest()


def event(
    event_id: str, tenant: str, source: str, type_: str, subject: str, time: datetime, data: Mapping[str, Any]
) -> Effect:
    """The effect that publishes a CloudEvent in the tenant's log, in order with others of the same source and subject.

    `event_id` is unique in the deployment and becomes the event's id: `new_id(parts.random_bytes)`, or `derived_id`.
    Source `/bas/devices`, type `device.created`, subject `devices/d1`; `data` is JSON as Python has it, of at most
    64 KiB, or the events service refuses the event. Raises TypeError for data that is not JSON.
    """
    made = CloudEvent(
        id=event_id,
        source=source,
        specversion="1.0",
        type=type_,
        subject=subject,
        datacontenttype="application/json",
        partitionkey=subject,
    )
    made.time.FromDatetime(time)
    _fill(made.data, data)
    return Effect(event_id, EVENT, tenant, f"{source} {subject}", made.SerializeToString())


def message_data(message: Message, *, personal: bool = False) -> dict[str, Any]:
    """Canonical proto3 JSON of a resource, as the REST API shows it, without what the protos mark as secret
    (`debug_redact`) and, unless `personal`, without what they mark as personal: whoever may read events need not be
    allowed to read users."""
    if _hides(message.DESCRIPTOR, personal):
        shown = type(message)()
        shown.CopyFrom(message)
        _clear(shown, personal)
        message = shown
    return MessageToDict(message)


def _fill(value: Value, json: object) -> None:
    if json is None:
        value.null_value = 0  # type: ignore[assignment]  # the enum's only value
    elif isinstance(json, bool):
        value.bool_value = json
    elif isinstance(json, int | float):
        value.number_value = json
    elif isinstance(json, str):
        value.string_value = json
    elif isinstance(json, Mapping):
        value.struct_value.SetInParent()
        fields = value.struct_value.fields
        for name, item in json.items():
            _fill(fields[name], item)
    elif isinstance(json, list | tuple):
        value.list_value.SetInParent()
        for item in json:
            _fill(value.list_value.values.add(), item)
    else:
        raise TypeError(f"{type(json).__name__} is not JSON")


def _clear(message: Message, personal: bool) -> None:  # noqa: FBT001 - which of two sets
    for name in _hidden(message.DESCRIPTOR, personal):
        message.ClearField(name)
    for field, held in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in held if field.is_repeated else (held,):
            _clear(each, personal)


@lru_cache(maxsize=256)
def _hides(descriptor: Descriptor, personal: bool) -> bool:  # noqa: FBT001 - as above
    """Whether there is anything in the message or below that is not shown."""
    met, left = {descriptor.full_name}, [descriptor]
    while left:
        at = left.pop()
        if _hidden(at, personal):
            return True
        below = [field.message_type for field in at.fields if field.message_type is not None]
        left += [each for each in below if each.full_name not in met]
        met.update(each.full_name for each in below)
    return False


@lru_cache(maxsize=256)
def _hidden(descriptor: Descriptor, personal: bool) -> tuple[str, ...]:  # noqa: FBT001 - as above
    """Names of the message's own fields that are not shown."""
    return tuple(field.name for field in descriptor.fields if _secret(field) or (not personal and _personal(field)))


def _secret(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().debug_redact)


def _personal(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[annotations_pb2.personal])
