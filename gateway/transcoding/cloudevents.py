"""CloudEvents in the forms in which CloudEvents users send them: one event, or a batch, as JSON whose extension attributes
stand beside the others (CloudEvents 1.0.2, JSON Event Format §3 and §4; HTTP Protocol Binding §3.2 and §3.3).

Our own JSON keeps them apart, under `extensions`. The way back, for streams, is `gateway.sse.frames.cloud_event`.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from chassis.errors import invalid_field
from gateway.transcoding.body import parse
from gateway.transcoding.routes import Route
from gateway.transcoding.schema import Field, Schema

SINGLE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_EVENT: Final = "bas.events.v2.CloudEvent"
_EXTENSIONS: Final = "extensions"
_DATA: Final = "data"

Translate = Callable[[bytes], bytes]
"""From a body in another media type to the JSON body of the route. Raises ApiError."""


def translations(route: Route, schema: Schema) -> Mapping[str, Translate]:
    """The further media types of a route's body: none unless the body is a list of events."""
    field = _events_field(route, schema)
    if field is None:
        return {}
    attributes = frozenset(each.json_name for each in schema.messages[_EVENT].fields) - {_EXTENSIONS}

    def single(body: bytes) -> bytes:
        return _written(field, [nested(parse(body), attributes, "body")])

    def batch(body: bytes) -> bytes:
        events = parse(body)
        if not isinstance(events, list):
            raise invalid_field("body", "An array of events is expected.")
        return _written(field, [nested(each, attributes, f"[{index}]") for index, each in enumerate(events)])

    return {SINGLE: single, BATCH: batch}


def translation_schemas(translations: Collection[str]) -> Mapping[str, dict[str, Any]]:
    """The JSON Schema of each of the media types."""
    event = {
        "type": "object",
        "description": "An event in the JSON format of CloudEvents 1.0, its extension attributes beside the others.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {name: {"type": "string"} for name in ("specversion", "id", "source", "type", "subject")},
    }
    known: dict[str, dict[str, Any]] = {SINGLE: event, BATCH: {"type": "array", "items": event, "maxItems": 500}}
    return {kind: known[kind] for kind in translations}


def nested(event: object, attributes: frozenset[str], at: str) -> dict[str, Any]:
    """An event with what is not among `attributes` under `extensions`. An attribute that is null is none. Raises ApiError
    that names `at` for what is no object."""
    if not isinstance(event, dict):
        raise invalid_field(at, "An event, which is an object, is expected.")
    made: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    for name, value in event.items():
        if name in attributes:
            if value is not None or name == _DATA:
                made[name] = value
        elif value is not None:
            extensions[name] = value
    if extensions:
        made[_EXTENSIONS] = extensions
    return made


def _events_field(route: Route, schema: Schema) -> Field | None:
    if route.rule.body != "*":
        return None
    fields = schema.messages[route.method.request].fields
    return next((field for field in fields if field.repeated and field.type_name == _EVENT), None)


def _written(field: Field, events: list[dict[str, Any]]) -> bytes:
    return json.dumps({field.json_name: events}, ensure_ascii=False).encode("utf-8", "surrogatepass")
