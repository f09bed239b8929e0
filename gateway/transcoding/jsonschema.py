"""Messages as JSON Schema (draft 2020-12), as their canonical JSON is."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.transcoding.schema import EnumType, Field, Kind, Message, Schema

_WELL_KNOWN: Final[Mapping[str, dict[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["3.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["displayName,labels"]},
    "google.protobuf.Value": {},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
}
_SCALARS: Final[Mapping[Kind, dict[str, Any]]] = {
    Kind.STRING: {"type": "string"},
    Kind.BYTES: {"type": "string", "contentEncoding": "base64"},
    Kind.BOOL: {"type": "boolean"},
    Kind.INT32: {"type": "integer", "format": "int32"},
    Kind.UINT32: {"type": "integer", "minimum": 0, "maximum": 4294967295},
    Kind.INT64: {"type": "string", "format": "int64"},
    Kind.UINT64: {"type": "string", "format": "uint64"},
    Kind.FLOAT: {"type": "number", "format": "float"},
    Kind.DOUBLE: {"type": "number", "format": "double"},
}


def component(name: str) -> str:
    """The name of a message or enum among the components: `devices.v2.Device`."""
    return name.removeprefix("bas.")


def reference(name: str) -> dict[str, Any]:
    """The schema of a message or enum by its full name."""
    known = _WELL_KNOWN.get(name)
    return dict(known) if known is not None else {"$ref": f"#/components/schemas/{component(name)}"}


def message_schemas(schema: Schema, names: Iterable[str]) -> dict[str, Any]:
    """The components of these messages and of all that they hold, by component name."""
    made: dict[str, Any] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if component(name) in made or name in _WELL_KNOWN:
            continue
        enum = schema.enums.get(name)
        if enum is not None:
            made[component(name)] = _enum(enum)
            continue
        message = schema.messages[name]
        made[component(name)] = _message(message)
        waiting += [field.type_name for field in message.fields if field.type_name]
    return dict(sorted(made.items()))


def value_schema(field: Field) -> dict[str, Any]:
    """The schema of a field's value, with its rules."""
    one = reference(field.type_name) if field.type_name else dict(_SCALARS[field.kind])
    rules = field.rules
    if field.is_map:
        made: dict[str, Any] = {"type": "object", "additionalProperties": one}
        return made | ({"maxProperties": rules.max_items} if rules and rules.max_items else {})
    if rules is not None and field.kind is Kind.STRING:
        one |= {"maxLength": rules.max_length} if rules.max_length else {}
    if rules is not None and field.kind is not Kind.STRING and "type" in one and one["type"] != "string":
        one |= {"minimum": rules.minimum} if rules.HasField("minimum") else {}
        one |= {"maximum": rules.maximum} if rules.HasField("maximum") else {}
    if field.repeated:
        made = {"type": "array", "items": one}
        return made | ({"maxItems": rules.max_items} if rules and rules.max_items else {})
    return one


def _message(message: Message) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in message.fields:
        made = value_schema(field)
        if field.comment:
            made["description"] = field.comment
        if "OUTPUT_ONLY" in field.behaviors:
            made["readOnly"] = True
        properties[field.json_name] = made
    document: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [field.json_name for field in message.fields if "REQUIRED" in field.behaviors]
    return (
        document
        | ({"description": message.comment} if message.comment else {})
        | ({"required": required} if required else {})
    )


def _enum(enum: EnumType) -> dict[str, Any]:
    lines = [f"- `{name}`: {text}" for name, text in enum.comments.items() if text]
    return {"type": "string", "enum": list(enum.numbers), "description": "\n".join([enum.comment, "", *lines]).strip()}
