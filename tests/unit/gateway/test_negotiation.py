"""The form of a stream, by what the client accepts."""

import pytest

from gateway.negotiation import Form, form_of

LINES, EVENTS = Form.NDJSON, Form.SSE


@pytest.mark.parametrize("default", [LINES, EVENTS])
@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("text/event-stream", EVENTS),
        ("TEXT/Event-Stream", EVENTS),
        ("text/event-stream, */*;q=0.1", EVENTS),
        ("text/*", EVENTS),
        ("application/x-ndjson", LINES),
        ("application/jsonl", LINES),
        ("application/json", LINES),
        ("application/*;q=0.5", LINES),
        ("application/x-ndjson;q=0.3, text/event-stream;q=0.9", EVENTS),
        ("application/x-ndjson;q=0.9, text/event-stream;q=0.3", LINES),
        ("*/*, text/event-stream;q=0", LINES),
        ("*/*, application/x-ndjson;q=0.0", EVENTS),
        ("text/event-stream;q=wrong", EVENTS),
    ],
)
def test_what_is_liked_best(accept: str, form: Form, default: Form) -> None:
    assert form_of(accept, default) is form


@pytest.mark.parametrize("default", [LINES, EVENTS])
@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "*/*;q=0.5", "image/png", ",", ";;,", "text/event-stream, application/x-ndjson", "text/html"],
)
def test_where_nothing_decides(accept: str, default: Form) -> None:
    assert form_of(accept, default) is default
