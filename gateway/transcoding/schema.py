"""What the gateway knows of the API: messages, enums and methods, read from the compiled descriptors.

`gen/bas/descriptors.binpb` is a FileDescriptorSet with comments. It is read once, at the start, into these frozen
values; requests never touch a descriptor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from bas.annotations.v2 import annotations_pb2 as policy_pb2
from chassis.policies import Policy, key_names, of_declared

_PREFIX: Final = "bas."


class Kind(Enum):
    """What a value is in JSON and in a parameter."""

    STRING = "string"
    BYTES = "bytes"
    BOOL = "bool"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT = "float"
    DOUBLE = "double"
    ENUM = "enum"
    MESSAGE = "message"


_T = FieldDescriptorProto
_KINDS: Final[Mapping[int, Kind]] = {
    _T.TYPE_STRING: Kind.STRING,
    _T.TYPE_BYTES: Kind.BYTES,
    _T.TYPE_BOOL: Kind.BOOL,
    _T.TYPE_INT32: Kind.INT32,
    _T.TYPE_SINT32: Kind.INT32,
    _T.TYPE_SFIXED32: Kind.INT32,
    _T.TYPE_UINT32: Kind.UINT32,
    _T.TYPE_FIXED32: Kind.UINT32,
    _T.TYPE_INT64: Kind.INT64,
    _T.TYPE_SINT64: Kind.INT64,
    _T.TYPE_SFIXED64: Kind.INT64,
    _T.TYPE_UINT64: Kind.UINT64,
    _T.TYPE_FIXED64: Kind.UINT64,
    _T.TYPE_FLOAT: Kind.FLOAT,
    _T.TYPE_DOUBLE: Kind.DOUBLE,
    _T.TYPE_ENUM: Kind.ENUM,
    _T.TYPE_MESSAGE: Kind.MESSAGE,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field. For a map, `kind` and `type_name` are those of its values and `key` is that of its keys."""

    name: str
    json_name: str
    kind: Kind
    type_name: str = ""
    repeated: bool = False
    key: Kind | None = None
    oneof: str = ""
    explicit: bool = False
    behaviors: frozenset[str] = frozenset()
    comment: str = ""
    rules: policy_pb2.FieldRules | None = None
    number: int = 0

    @property
    def is_map(self) -> bool:
        return self.key is not None


@dataclass(frozen=True, slots=True)
class Message:
    """`by_name` finds a field by either of its names."""

    name: str
    fields: tuple[Field, ...]
    comment: str = ""
    by_name: Mapping[str, Field] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnumType:
    name: str
    numbers: Mapping[str, int]
    comment: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One HTTP binding of a method. `body` is "", "*" or the name of a top-level field."""

    method: str
    path: str
    body: str


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `service` is the deployment's name of its service: `devices` of `bas.devices.v2.DeviceService`."""

    service: str
    full_service: str
    name: str
    request: str
    response: str
    rules: tuple[Rule, ...]
    policy: policy_pb2.MethodPolicy
    server_streaming: bool = False
    client_streaming: bool = False
    comment: str = ""

    @property
    def path(self) -> str:
        """The gRPC path."""
        return f"/{self.full_service}/{self.name}"

    @property
    def full_name(self) -> str:
        return f"{self.full_service}.{self.name}"


@dataclass(frozen=True, slots=True)
class Schema:
    messages: Mapping[str, Message]
    enums: Mapping[str, EnumType]
    methods: tuple[Method, ...]
    services: Mapping[str, str]
    """Full service name → its comment."""
    files: tuple[str, ...]
    """The proto files that define methods, which import all the others that matter."""

    def policy(self, method: Method) -> Policy:
        """How `method` may be called, as the client chain takes it."""
        names = key_names(method.policy, self._fields(method.request))
        numbers, message = [], method.request
        for name in names:
            field = self.messages[message].by_name[name]
            numbers.append(field.number)
            message = field.type_name
        return of_declared(method.policy, tuple(numbers))

    def _fields(self, message: str) -> Mapping[str, bool]:
        """Names of fields → whether what they hold has an etag."""
        return {
            each.name: each.kind is Kind.MESSAGE and "etag" in self.messages[each.type_name].by_name
            for each in self.messages[message].fields
            if each.kind is not Kind.MESSAGE or each.type_name in self.messages
        }


def read_schema(descriptors: bytes) -> Schema:
    """The API described by a serialized FileDescriptorSet. Raises google.protobuf.message.DecodeError."""
    reader = _Reader()
    for file in FileDescriptorSet.FromString(descriptors).file:
        reader.file(file)
    return Schema(reader.messages, reader.enums, tuple(reader.methods), reader.services, tuple(reader.files))


class _Reader:
    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, EnumType] = {}
        self.methods: list[Method] = []
        self.services: dict[str, str] = {}
        self.files: list[str] = []
        self._comments: dict[tuple[int, ...], str] = {}

    def file(self, file: FileDescriptorProto) -> None:
        self._comments = {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
        for index, message in enumerate(file.message_type):
            self._message(file.package, message, (4, index))
        for index, enum in enumerate(file.enum_type):
            self._enum(file.package, enum, (5, index))
        if file.service:
            self.files.append(file.name)
        for index, service in enumerate(file.service):
            full = f"{file.package}.{service.name}"
            self.services[full] = self._comment(6, index)
            for place, method in enumerate(service.method):
                self.methods.append(_method(full, method, self._comment(6, index, 2, place)))

    def _message(self, scope: str, message: DescriptorProto, path: tuple[int, ...]) -> None:
        name = f"{scope}.{message.name}"
        entries = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
        made = []
        for index, each in enumerate(message.field):
            oneof = message.oneof_decl[each.oneof_index].name if each.HasField("oneof_index") else ""
            made.append(_field(each, entries, oneof, self._comment(*path, 2, index)))
        by_name = {one.json_name: one for one in made} | {one.name: one for one in made}
        self.messages[name] = Message(name, tuple(made), self._comment(*path), by_name)
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                self._message(name, nested, (*path, 3, index))
        for index, enum in enumerate(message.enum_type):
            self._enum(name, enum, (*path, 4, index))

    def _enum(self, scope: str, enum: EnumDescriptorProto, path: tuple[int, ...]) -> None:
        name = f"{scope}.{enum.name}"
        comments = {value.name: self._comment(*path, 2, index) for index, value in enumerate(enum.value)}
        self.enums[name] = EnumType(
            name, {value.name: value.number for value in enum.value}, self._comment(*path), comments
        )

    def _comment(self, *path: int) -> str:
        return self._comments.get(path, "")


def _field(each: FieldDescriptorProto, entries: Mapping[str, DescriptorProto], oneof: str, comment: str) -> Field:
    options = each.options
    behaviors = frozenset(
        field_behavior_pb2.FieldBehavior.Name(one) for one in options.Extensions[field_behavior_pb2.field_behavior]
    )
    rules = options.Extensions[policy_pb2.rules] if options.HasExtension(policy_pb2.rules) else None
    entry = entries.get(each.type_name)
    value = entry.field[1] if entry else each
    return Field(
        name=each.name,
        json_name=each.json_name,
        kind=_KINDS[value.type],
        type_name=value.type_name.removeprefix("."),
        repeated=each.label == _T.LABEL_REPEATED and entry is None,
        key=_KINDS[entry.field[0].type] if entry else None,
        oneof="" if each.proto3_optional else oneof,
        explicit=bool(oneof) or (value.type == _T.TYPE_MESSAGE and each.label != _T.LABEL_REPEATED),
        behaviors=behaviors,
        comment=comment,
        rules=rules,
        number=each.number,
    )


def _method(full_service: str, method: MethodDescriptorProto, comment: str) -> Method:
    top = method.options.Extensions[annotations_pb2.http]
    return Method(
        service=full_service.removeprefix(_PREFIX).split(".", 1)[0],
        full_service=full_service,
        name=method.name,
        request=method.input_type.removeprefix("."),
        response=method.output_type.removeprefix("."),
        rules=tuple(_rules(top)),
        policy=method.options.Extensions[policy_pb2.policy],
        server_streaming=method.server_streaming,
        client_streaming=method.client_streaming,
        comment=comment,
    )


def _rules(top: http_pb2.HttpRule) -> Iterator[Rule]:
    for rule in (top, *top.additional_bindings):
        verb = rule.WhichOneof("pattern")
        if verb == "custom":
            yield Rule(rule.custom.kind.upper(), rule.custom.path, rule.body)
        elif verb is not None:
            yield Rule(verb.upper(), getattr(rule, verb), rule.body)
