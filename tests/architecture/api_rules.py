"""What every method and every request of the API must have, as functions over its descriptors.

Each rule yields one sentence for each place that breaks it. `ALL` is what `test_protos.py` holds the
API to; it also seeds one fault for each rule.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2 as pb

from bas.annotations.v2 import annotations_pb2 as rules_pb

SCOPE = re.compile(r"(?P<service>[a-z]+):(read|write|admin)")
VARIABLE = re.compile(r"\{([a-z_.]+)\}")
Field = pb.FieldDescriptorProto


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC with its request and response messages."""

    name: str
    service: str
    descriptor: pb.MethodDescriptorProto

    @property
    def policy(self) -> rules_pb.MethodPolicy:
        return self.descriptor.options.Extensions[rules_pb.policy]

    @property
    def route(self) -> tuple[str, str]:
        """The HTTP verb and path; empty strings when there is no rule."""
        rule = self.descriptor.options.Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        return (verb.upper(), getattr(rule, verb)) if verb else ("", "")


@dataclass(frozen=True, slots=True)
class Api:
    """The messages and methods of a FileDescriptorSet."""

    messages: dict[str, pb.DescriptorProto]
    methods: tuple[Method, ...]

    def field(self, message: str, path: str) -> Field | None:
        """Return the field at a dotted path within a message, or None."""
        found: Field | None = None
        for name in path.split("."):
            fields = self.messages[message].field if message in self.messages else ()
            found = next((field for field in fields if field.name == name), None)
            if found is None:
                return None
            message = found.type_name
        return found

    def request_fields(self, message: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, Field]]:
        """Yield every field of ours that a caller can fill in, with the name of its message."""
        for field in self.messages[message].field:
            if field_behavior_pb2.OUTPUT_ONLY in behaviors(field):
                continue
            yield message, field
            entry = self.map_entry(field)
            inner = entry.field[1].type_name if entry else field.type_name
            if inner.startswith(".bas.") and inner in self.messages and inner not in seen:
                yield from self.request_fields(inner, seen | {message})

    def map_entry(self, field: Field) -> pb.DescriptorProto | None:
        """Return the entry message of a map field, or None for any other field."""
        message = self.messages.get(field.type_name)
        return message if message is not None and message.options.map_entry else None


def load(files: pb.FileDescriptorSet) -> Api:
    """Read the API from its compiled descriptors."""
    messages: dict[str, pb.DescriptorProto] = {}

    def add(prefix: str, message: pb.DescriptorProto) -> None:
        messages[f"{prefix}.{message.name}"] = message
        for nested in message.nested_type:
            add(f"{prefix}.{message.name}", nested)

    methods = []
    for file in files.file:
        for message in file.message_type:
            add(f".{file.package}", message)
        for service in file.service:
            owner = file.package.split(".")[1]
            methods += [Method(f"{service.name}.{method.name}", owner, method) for method in service.method]
    return Api(messages, tuple(methods))


def behaviors(field: Field) -> list[int]:
    return list(field.options.Extensions[field_behavior_pb2.field_behavior])


def routes_are_ours(api: Api) -> Iterator[str]:
    """One HTTP rule each, below /api/v2/, with variables that are ids, and a body that exists."""
    taken: dict[tuple[str, str], str] = {}
    for method in api.methods:
        verb, path = method.route
        rule = method.descriptor.options.Extensions[annotations_pb2.http]
        if not path.startswith("/api/v2/") or rule.additional_bindings:
            yield f"{method.name} needs exactly one HTTP rule below /api/v2/"
        key = (verb, VARIABLE.sub("{}", path))
        if key in taken:
            yield f"{method.name} has the route of {taken[key]}"
        taken[key] = method.name
        for variable in VARIABLE.findall(path):
            field = api.field(method.descriptor.input_type, variable)
            if field is None or field.options.Extensions[rules_pb.rules].format != rules_pb.FORMAT_ID:
                yield f"{method.name}: {variable} in its path is not an id field"
        if rule.body not in ("", "*") and api.field(method.descriptor.input_type, rule.body) is None:
            yield f"{method.name}: there is no field {rule.body} to be its body"


def policies_are_whole(api: Api) -> Iterator[str]:
    """A scope of its own service, and deadlines unless it is a stream."""
    for method in api.methods:
        policy, stream = method.policy, method.descriptor.server_streaming
        scope = SCOPE.fullmatch(policy.scope)
        if scope is None or scope["service"] != method.service:
            yield f"{method.name} needs a scope {method.service}:read, :write or :admin"
        if stream != (policy.default_deadline_ms == 0) or stream != (policy.max_deadline_ms == 0):
            yield f"{method.name} needs both deadlines, or is a stream and has none"
        if not policy.default_deadline_ms <= policy.max_deadline_ms <= 60_000:
            yield f"{method.name} needs a greatest deadline between its default and 60 s"


def policies_name_fields(api: Api) -> Iterator[str]:
    """What a policy says of fields is true of the messages."""
    for method in api.methods:
        policy, request, response = method.policy, method.descriptor.input_type, method.descriptor.output_type
        if policy.created != bool(policy.created_id) or (policy.created and method.route[0] != "POST"):
            yield f"{method.name} makes a resource by POST and names its id, or does neither"
        if policy.created_id and api.field(response, policy.created_id) is None:
            yield f"{method.name}: there is no {policy.created_id} in its response"
        if policy.idempotency_field and api.field(request, policy.idempotency_field) is None:
            yield f"{method.name}: there is no {policy.idempotency_field} in its request"
        if policy.retry == rules_pb.RETRY_WITH_REQUEST_ID and not policy.idempotency_field:
            yield f"{method.name} is retried with a request id, and names no field for it"
        fields = [field.name for _, field in api.request_fields(request)]
        if policy.retry == rules_pb.RETRY_WITH_ETAG and "etag" not in fields:
            yield f"{method.name} is retried with an etag, and takes none"
        if policy.retry == rules_pb.RETRY_WITH_CURSOR and not (
            method.descriptor.server_streaming and "cursor" in fields
        ):
            yield f"{method.name} is retried with a cursor, and is no stream with one"


def tenant_is_never_asked_for(api: Api) -> Iterator[str]:
    """The tenant comes from the credential: no field that a caller can fill in names one."""
    for method in api.methods:
        for message, field in api.request_fields(method.descriptor.input_type):
            if "tenant" in field.name:
                yield f"{method.name} takes {message}.{field.name}"


def requests_are_bounded(api: Api) -> Iterator[str]:
    """Every string, list, map, mask, JSON value and duration that a caller can fill in has its limits."""
    for method in api.methods:
        for message, field in api.request_fields(method.descriptor.input_type):
            for missing in missing_bounds(api, field):
                yield f"{method.name}: {message}.{field.name} has no {missing}"


def missing_bounds(api: Api, field: Field) -> Iterator[str]:
    """Yield the names of the limits that a field should have and has not."""
    rules = field.options.Extensions[rules_pb.rules]
    entry = api.map_entry(field)
    if field.label == Field.LABEL_REPEATED and not rules.max_items:
        yield "max_items"
    if entry is not None:
        if not rules.key_max_length:
            yield "key_max_length"
        if (
            entry.field[1].type in (Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE)
            and not rules.value_max_bytes
        ):
            yield "value_max_bytes"
    elif field.type in (Field.TYPE_STRING, Field.TYPE_BYTES) and not (rules.max_length or rules.max_bytes):
        yield "max_length or max_bytes"
    elif field.type_name == ".google.protobuf.Value" and not rules.max_bytes:
        yield "max_bytes"
    elif field.type_name == ".google.protobuf.FieldMask" and not rules.max_items:
        yield "max_items"
    elif field.type_name == ".google.protobuf.Duration" and not (rules.min_seconds and rules.max_seconds):
        yield "min_seconds and max_seconds"


ALL: tuple[Callable[[Api], Iterator[str]], ...] = (
    routes_are_ours,
    policies_are_whole,
    policies_name_fields,
    tenant_is_never_asked_for,
    requests_are_bounded,
)


def surface(api: Api) -> str:
    """Return one line for each RPC: verb, path, RPC, scope and default deadline."""
    lines = [
        f"{method.route[0]:6} {method.route[1]:48} {method.name:40} {method.policy.scope:15} "
        f"{method.policy.default_deadline_ms or '-'}"
        for method in api.methods
    ]
    return "\n".join(sorted(lines, key=lambda line: line.split()[2])) + "\n"
