"""What the OpenAPI document says of streams. OpenAPI 3.1 has no schema for a sequence: what is described is one line."""

from typing import Any, Final

from gateway.transcoding.jsonschema import reference
from gateway.transcoding.routes import Route
from gateway.transcoding.schema import Schema

LAST_EVENT_ID: Final = "LastEventId"
"""The header's name among the components."""

_CURSOR: Final = "cursor"
_LINES: Final = (
    "One JSON object a line; this schema is that of one line. An error in the middle is the last line, as `error`: a "
    "stream without it is complete."
)
_MESSAGES: Final = (
    "Server-Sent Events: the `data` of each is one such object. An error in the middle is an `event: error`, whose "
    "`data` is a Problem; a stream that came to its end says so by `event: end`. Comments come while it is silent."
)
_EVENTS: Final = (
    "Server-Sent Events, and the default: `event` is the type of a CloudEvent, `data` its JSON in the format of "
    "CloudEvents 1.0, `id` the position to go on from. `event: gap` says that events are missing, `warning` that the "
    "stream will end, `end` that it does, each with a reason. Comments come while it is silent. Overload, too, is told "
    "by an `end` after status 200: a browser comes back only then."
)


def resumes(route: Route, schema: Schema) -> bool:
    """Whether the route's streams go on from a cursor."""
    return route.method.server_streaming and _CURSOR in schema.messages[route.method.request].by_name


def resume_parameters() -> list[dict[str, Any]]:
    """What, beside `cursor`, says where to go on."""
    return [
        {
            "name": "last_event_id",
            "in": "query",
            "description": "The same as `cursor`, which it wins over; for an EventSource that begins at a position.",
            "schema": {"type": "string"},
        },
        {"$ref": f"#/components/parameters/{LAST_EVENT_ID}"},
    ]


def stream_response(route: Route, *, events: bool) -> dict[str, Any]:
    """The response that is a stream; `events`: one of events that clients share."""
    failed = {"type": "object", "required": ["error"], "properties": {"error": reference("Problem")}}
    lines = {"description": _LINES, "anyOf": [reference(route.method.response), failed]}
    return {
        "description": "The stream, in the form that `Accept` asks for. An error before its first message is an answer of "
        "its own, with its status.",
        "content": {
            "application/x-ndjson": {"schema": lines},
            "text/event-stream": {"schema": {"type": "string", "description": _EVENTS if events else _MESSAGES}},
        },
    }
