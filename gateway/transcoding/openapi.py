"""The OpenAPI 3.1 document of the API, from its descriptors and their comments."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from gateway.transcoding.binding import Binder
from gateway.transcoding.cloudevents import translation_schemas
from gateway.transcoding.credentials import ANY, OPTIONAL, SCHEMES, cookie_paths
from gateway.transcoding.jsonschema import message_schemas, reference, value_schema
from gateway.transcoding.routes import Route
from gateway.transcoding.schema import Field, Kind, Message, Schema
from gateway.transcoding.streamdocs import LAST_EVENT_ID, resume_parameters, resumes, stream_response
from gateway.transcoding.template import DOUBLE_STAR

_EMPTY: Final = "google.protobuf.Empty"
_SESSIONS: Final = "sessions"

_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The explanation, for people."},
        "instance": {"type": "string", "description": "The id of the request, as in X-Request-Id."},
        "code": {"type": "string", "description": "The stable reason, for programs: `DEVICE_NOT_FOUND`."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
            },
        },
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "RequestTimeout": ("Request-Timeout", "The longest time to wait: `250ms`, `2s`."),
    "RequestId": ("X-Request-Id", "An id of the caller's for this request."),
    "IdempotencyKey": ("Idempotency-Key", "Makes a repetition harmless: the same key again returns the first answer."),
    "IfMatch": ("If-Match", "The etag, in quotes, that the resource must have; 412 if it has not."),
    LAST_EVENT_ID: (
        "Last-Event-ID",
        "The position to go on from, as a browser sends it by itself; wins over the query's.",
    ),
    "IfNoneMatch": ("If-None-Match", "An etag, in quotes; 304 if the resource still has it."),
}


def openapi_document(
    schema: Schema,
    routes: Iterable[tuple[Route, Binder]],
    retired: Iterable[str] = (),
    shared: Collection[str] = (),
) -> bytes:
    """The document as JSON; the operations of the versions in `retired` are marked deprecated. `shared` are the RPCs, by
    path, whose event streams have a handler."""
    made = list(routes)
    gone = frozenset(retired)
    used = {name for route, _ in made for name in (route.method.request, route.method.response) if name != _EMPTY}
    services = {route.method.full_service: route.method.service for route, _ in made}
    with_sessions = {route.version for route, _ in made if route.method.service == _SESSIONS}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "BAS",
            "version": "v2",
            "description": "Every path is also there without its version: `/api/devices`; the request header "
            "`API-Version` then names it, v2 without.",
        },
        "servers": [{"url": "/"}],
        "security": ANY,
        "tags": [{"name": service, "description": schema.services.get(full, "")} for full, service in services.items()],
        "paths": _paths(schema, made, gone, shared) | cookie_paths(sorted(with_sessions)),
        "components": {
            "securitySchemes": SCHEMES,
            "schemas": {"Problem": _PROBLEM, **message_schemas(schema, used)},
            "parameters": {
                key: {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
                for key, (name, text) in _HEADERS.items()
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong.",
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                }
            },
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _paths(
    schema: Schema, routes: list[tuple[Route, Binder]], retired: frozenset[str], shared: Collection[str]
) -> dict[str, Any]:
    # Two templates that differ in the names of their variables only are one path to OpenAPI: the first gives the names.
    names: dict[tuple[str, Any], tuple[str, list[str]]] = {}
    paths: dict[str, Any] = {}
    for route, binder in routes:
        text, variables = names.setdefault((route.version, route.template.shape), _path(route))
        operation = _operation(schema, route, binder, variables, shared)
        if route.version in retired:
            operation["deprecated"] = True
        paths.setdefault(text, {})[route.rule.method.lower()] = operation
    return paths


def _path(route: Route) -> tuple[str, list[str]]:
    segments = list(route.template.segments)
    names: list[str] = []
    for variable in reversed(route.template.variables):
        last = variable.path[-1]
        name = last if last not in names else "_".join(variable.path)
        names.insert(0, name)
        segments[variable.start : variable.end] = [f"{{{name}}}"]
    segments = [f"{{rest{at}}}" if segment in ("*", DOUBLE_STAR) else segment for at, segment in enumerate(segments)]
    verb = f":{route.template.verb}" if route.template.verb else ""
    return f"/api/{route.version}/" + "/".join(segments) + verb, names


def _operation(
    schema: Schema, route: Route, binder: Binder, variables: list[str], shared: Collection[str]
) -> dict[str, Any]:
    method = route.method
    first, _, rest = method.comment.partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": method.full_name.replace(".", "_"),
        "tags": [method.service],
        "summary": " ".join(first.split()).rstrip("."),
        "description": f"{rest.strip()}\n\nScope: `{method.policy.scope}`.".strip(),
        "parameters": [*_variables(schema, route, variables), *_query(binder), *_headers(route, binder)],
        "responses": _responses(route, shared),
    }
    if resumes(route, schema):
        operation["parameters"] += resume_parameters()
    body = _body(schema, route)
    if body is not None:
        others = {kind: {"schema": other} for kind, other in translation_schemas(binder.translations).items()}
        operation["requestBody"] = {"content": {"application/json": {"schema": body}, **others}}
    if method.policy.credential:
        operation["security"] = OPTIONAL
    return operation


def _variables(schema: Schema, route: Route, names: list[str]) -> Iterable[dict[str, Any]]:
    for variable, name in zip(route.template.variables, names, strict=True):
        field = _field_at(schema, schema.messages[route.method.request], variable.path)
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": field.comment,
            "schema": value_schema(field),
        }


def _field_at(schema: Schema, message: Message, path: tuple[str, ...]) -> Field:
    field = message.by_name[path[0]]
    return field if len(path) == 1 else _field_at(schema, schema.messages[field.type_name], path[1:])


def _query(binder: Binder) -> Iterable[dict[str, Any]]:
    for name, field in binder.query_fields():
        made: dict[str, Any] = {
            "name": name,
            "in": "query",
            "description": field.comment,
            "schema": value_schema(field),
        }
        if field.is_map:
            made |= {"style": "deepObject", "explode": True}
        yield made


def _headers(route: Route, binder: Binder) -> Iterable[dict[str, str]]:
    wanted = ["RequestTimeout", "RequestId"]
    if route.method.policy.idempotency_field:
        wanted.append("IdempotencyKey")
    if binder.takes_etag:
        wanted.append("IfMatch")
    if route.rule.method == "GET" and not route.method.server_streaming:
        wanted.append("IfNoneMatch")
    return [{"$ref": f"#/components/parameters/{key}"} for key in wanted]


def _body(schema: Schema, route: Route) -> dict[str, Any] | None:
    if not route.rule.body:
        return None
    if route.rule.body == "*":
        return reference(route.method.request)
    field = schema.messages[route.method.request].by_name[route.rule.body]
    return reference(field.type_name) if field.kind is Kind.MESSAGE else value_schema(field)


def _responses(route: Route, shared: Collection[str]) -> dict[str, Any]:
    method = route.method
    problem = {"$ref": "#/components/responses/Problem"}
    if method.server_streaming:
        return {"200": stream_response(route, events=method.path in shared), "default": problem}
    if method.response == _EMPTY:
        return {"204": {"description": "Done."}, "default": problem}
    status, text = ("201", "Created; `Location` says where.") if method.policy.created else ("200", "The answer.")
    content = {"application/json": {"schema": reference(method.response)}}
    return {status: {"description": text, "content": content}, "default": problem}
