"""Event streams that a handler serves in place of a call for each client: what it is given, and what it may answer."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bas.events.v2.events_service_pb2 import SubscribeEventsRequest
from chassis.errors import ApiError, invalid_field
from gateway.sse.port import Opening
from tests.integration.gateway.fake_streams import SUBSCRIBE, heartbeats, serve_streams
from tests.integration.gateway.streaming import SUBSCRIBE_PATH, Running, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

SSE = {"accept": "text/event-stream"}


class Handler:
    """Answers one event, or raises; keeps what it was given."""

    def __init__(self) -> None:
        self.openings: list[Opening] = []
        self.refuse: ApiError | None = None
        self.drained: float | None = None

    async def serve(self, opening: Opening) -> None:
        self.openings.append(opening)
        if self.refuse is not None:
            raise self.refuse
        headers = [(b"content-type", b"text/event-stream"), *opening.headers]
        await opening.send({"type": "http.response.start", "status": 200, "headers": headers})
        await opening.send({"type": "http.response.body", "body": b"data: shared\n\n", "more_body": False})

    async def drain(self, seconds: float) -> None:
        self.drained = seconds
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def handler() -> Handler:
    return Handler()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(handler: Handler) -> AsyncIterator[Running]:
    async with serve_streams() as services, gateway(services, {SUBSCRIBE: handler}) as made:
        services.script = lambda: heartbeats("c1")
        yield made
    assert handler.drained is not None, "it is told when the gateway stops"


@pytest.fixture
def running(shared: Running, handler: Handler) -> Running:
    handler.openings.clear()
    handler.refuse = None
    shared.services.requests.clear()
    return shared


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "text/event-stream, application/x-ndjson"])
async def test_what_a_handler_is_given(running: Running, handler: Handler, accept: str) -> None:
    async with running.client(accept=accept) as http:
        answer = await http.get(
            f"{SUBSCRIBE_PATH}?types=device.*&cursor=c&last_event_id=q",
            headers={"last-event-id": "h", "origin": "https://app.example", "x-request-id": "r-1"},
        )
    assert answer.text == "data: shared\n\n"
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["api-version"] == "v2"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    (opening,) = handler.openings
    message = SubscribeEventsRequest.FromString(opening.message)
    assert message == SubscribeEventsRequest(types=["device.*"], cursor="h")
    assert (opening.credential.caller.tenant, opening.credential.authorization) == ("acme", "Bearer acme")
    assert opening.credential.session_token == ""
    assert await opening.renew(1.0) == opening.credential
    sent = dict(opening.metadata)
    assert (sent["authorization"], sent["x-request-id"]) == ("Bearer acme", "r-1")
    assert "traceparent" in sent
    assert running.services.requests == []


async def test_lines_and_heads_are_calls_of_their_own(running: Running, handler: Handler) -> None:
    async with running.client() as http:
        lines = await http.get(SUBSCRIBE_PATH, headers={"accept": "application/x-ndjson"})
        assert '"cursor":"c1"' in lines.text
        head = await http.head(SUBSCRIBE_PATH)
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert handler.openings == []
    assert len(running.services.requests) == 2


async def test_who_may_not_is_told_so_by_status(running: Running, handler: Handler) -> None:
    async with running.client() as http:
        for path, headers, status in (
            (SUBSCRIBE_PATH, {"authorization": ""}, 401),
            (SUBSCRIBE_PATH, {"authorization": "Bearer acme-none"}, 403),
            (f"{SUBSCRIBE_PATH}?nothing=1", {}, 400),
            (f"{SUBSCRIBE_PATH}?last_event_id=a&lastEventId=b", {}, 400),
        ):
            answer = await http.get(path, headers=SSE | headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    assert handler.openings == []


async def test_an_error_of_the_handler_is_an_answer(running: Running, handler: Handler) -> None:
    handler.refuse = invalid_field("cursor", "is wrong")
    async with running.client() as http:
        answer = await http.get(SUBSCRIBE_PATH, headers=SSE)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


async def test_the_document_says_what_is_shared(running: Running) -> None:
    async with running.client() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    streams = [paths[path]["get"]["responses"]["200"]["content"] for path in _STREAMS]
    told = [
        "Server-Sent Events, and the default" in each["text/event-stream"]["schema"]["description"] for each in streams
    ]
    assert told == [True, False]


_STREAMS = ("/api/v2/events/stream", "/api/v2/audit/entries:export")
