"""Server streams over HTTP: what comes, in which form, and what happens when somebody does not behave."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chassis.config import Seconds
from chassis.errors import ApiError, invalid_field, not_found, unavailable
from tests.integration.gateway.fake_streams import entries, entry, heartbeats, serve_streams, silence
from tests.integration.gateway.streaming import EXPORT_PATH, SUBSCRIBE_PATH, Running, asked, gateway, unchunked
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SSE = {"accept": "text/event-stream"}
BIG = "x" * 1000
MANY = 100_000
"""Entries, 1 KB each, more than all the buffers on the way can hold."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Running]:
    async with serve_streams() as services, gateway(services, stream_heartbeat=Seconds(0.1)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def running(shared: Running) -> AsyncIterator[Running]:
    shared.services.reset()
    yield shared
    await shared.services.idle()
    await eventually(lambda: not len(shared.built.streams), "no stream to be left")


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as client:
        yield client


async def then(error: ApiError, *texts: str) -> AsyncIterator[Any]:
    for text in texts:
        yield entry(text)
    raise error


async def endless() -> AsyncIterator[Any]:
    for _ in range(MANY):
        yield entry(BIG)


def reasons(lines: list[str]) -> list[str]:
    return [json.loads(line)["entry"]["entry"]["reason"] for line in lines]


async def test_a_message_is_a_line(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: entries("a", "two\nlines", "c")
    answer = await http.get(f"{EXPORT_PATH}?tree_size=7", headers={"origin": "https://app.example"})
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert answer.text.endswith("\n")
    assert reasons(lines) == ["a", "two\nlines", "c"]
    assert json.loads(lines[0])["entry"]["cursor"] == "c1"
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["api-version"] == "v2"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert running.services.requests[0].tree_size == 7
    sent = running.services.metadata[0]
    assert sent["x-request-id"] == answer.headers["x-request-id"]
    assert sent["authorization"] == "Bearer acme"
    assert "traceparent" in sent


async def test_a_line_comes_when_its_message_does(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: silence("a", "b")
    async with http.stream("GET", EXPORT_PATH) as answer:
        lines = answer.aiter_lines()
        assert reasons([await anext(lines), await anext(lines)]) == ["a", "b"]
    await running.services.idle()


async def test_a_stream_without_messages(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = entries
    answer = await http.get(EXPORT_PATH)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_an_error_at_the_beginning_is_an_answer(http: httpx.AsyncClient, running: Running, accept: str) -> None:
    for error, status in ((invalid_field("tree_size", "is wrong"), 400), (not_found("checkpoint", "1"), 404)):
        running.services.script = lambda error=error: then(error)  # type: ignore[misc]
        answer = await http.get(EXPORT_PATH, headers={"accept": accept})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == error.reason
    assert running.handled("NOT_FOUND") >= 1


async def test_parameters_are_checked_before_anybody_is_called(http: httpx.AsyncClient, running: Running) -> None:
    for query in ("tree_size=x", "nothing=1", "cursor=a&cursor=b", "last_event_id=a&lastEventId=b"):
        answer = await http.get(f"{EXPORT_PATH}?{query}")
        assert answer.status_code == 400, query
    assert (await http.get(EXPORT_PATH, headers={"request-timeout": "x"})).status_code == 400
    assert (await http.post(EXPORT_PATH)).status_code == 405
    assert (await http.get(EXPORT_PATH, headers={"authorization": ""})).status_code == 401
    assert running.services.requests == []


async def test_an_error_in_the_middle_is_the_last_line(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: then(unavailable("STORE_AWAY", "Later."), "a")
    answer = await http.get(EXPORT_PATH)
    assert answer.status_code == 200
    first, last = answer.text.splitlines()
    assert reasons([first]) == ["a"]
    problem = json.loads(last)["error"]
    assert (problem["code"], problem["status"]) == ("STORE_AWAY", 503)
    assert problem["instance"] == answer.headers["x-request-id"]


async def test_server_sent_events(http: httpx.AsyncClient, running: Running) -> None:
    answer = await http.get(EXPORT_PATH, headers=SSE)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    first, second, end, rest = answer.text.split("\n\n")
    assert reasons([block.removeprefix("data: ") for block in (first, second)]) == ["a", "b"]
    assert (end, rest) == ("event: end\ndata: {}", "")
    running.services.script = lambda: then(unavailable("STORE_AWAY", "Later."), "a")
    answer = await http.get(EXPORT_PATH, headers=SSE)
    event, data = answer.text.split("\n\n")[1].split("\n")
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "STORE_AWAY"


async def test_a_silent_event_stream_shows_that_it_lives(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: silence("a")
    async with http.stream("GET", EXPORT_PATH, headers=SSE) as answer:
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        seen = [await anext(lines) for _ in range(4)]
    assert seen == ["", ":", "", ":"]


async def test_head_is_the_head_only(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: silence("a")
    answer = await http.head(EXPORT_PATH)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "content-length" not in answer.headers
    await running.services.idle()
    running.services.script = lambda: then(not_found("checkpoint", "1"))
    assert (await http.head(EXPORT_PATH)).status_code == 404


@pytest.mark.parametrize("texts", [(), ("a",)])
async def test_a_client_that_leaves_ends_the_call(running: Running, texts: tuple[str, ...]) -> None:
    running.services.script = lambda: silence(*texts)
    async with asked(running, EXPORT_PATH) as reader:
        await eventually(lambda: running.services.sent == len(texts) and running.services.active == 1, "the call")
        if texts:
            assert (await reader.read(15)).startswith(b"HTTP/1.1 200")
    await running.services.idle()


async def test_a_service_that_never_answers(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = silence
    answer = await http.get(EXPORT_PATH, headers={"request-timeout": "250ms"})
    assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")
    await running.services.idle()


async def test_a_service_that_dies(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: silence("a")
    async with http.stream("GET", EXPORT_PATH) as answer:
        lines = answer.aiter_lines()
        assert reasons([await anext(lines)]) == ["a"]
        await running.services.stop()
        assert json.loads(await anext(lines))["error"]["code"] in {"UNAVAILABLE", "CANCELLED"}
        assert [line async for line in lines] == []
    assert (await http.get(EXPORT_PATH)).status_code == 503
    await running.services.start()

    async def back() -> bool:
        running.services.script = entries
        return (await http.get(EXPORT_PATH)).status_code == 200

    await eventually(back, "the service to be found again", within=30)


async def test_a_reader_of_single_bytes_gets_all_of_it(running: Running) -> None:
    running.services.script = lambda: entries(*(f"{number:04}{BIG}" for number in range(300)))
    async with asked(running, EXPORT_PATH) as reader:
        begun = b"".join([await reader.read(1) for _ in range(3000)])
        while not begun.endswith(b"0\r\n\r\n"):
            begun += await reader.read(1 << 20)
    _, chunks, whole = unchunked(begun)
    assert whole
    assert [reason[:4] for reason in reasons(b"".join(chunks).decode().splitlines())] == [f"{n:04}" for n in range(300)]


async def test_a_reader_that_stops_stops_the_service_and_goes_on_where_it_was(running: Running) -> None:
    running.services.script = endless
    async with asked(running, EXPORT_PATH) as reader:
        await eventually(lambda: running.services.sent > 100, "the service to begin", within=30)
        before = -1
        while before != running.services.sent:
            before = running.services.sent
            await asyncio.sleep(0.3)
        assert 0 < before < MANY / 3, "the rest waits where it is made"
        while running.services.sent < before + 100:
            assert await reader.read(1 << 20)
    await running.services.idle()


async def test_a_reader_that_stops_for_long_is_cut_off() -> None:
    async with serve_streams() as services, gateway(services, stream_stall=Seconds(0.5)) as running:
        services.script = endless
        async with asked(running, EXPORT_PATH) as reader:
            await eventually(lambda: services.active == 1, "the call")
            await services.idle()
            await eventually(lambda: not len(running.built.streams), "the stream to be given up")
            assert not unchunked(await reader.rest())[2], "it never came to its end, and can tell"
        assert running.handled("CANCELLED") == 1


async def test_streams_end_when_the_gateway_stops() -> None:
    async with serve_streams() as services, gateway(services, drain=Seconds(5)) as running:
        services.script = lambda: silence("a")
        async with running.client() as http, http.stream("GET", EXPORT_PATH) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            stopping = asyncio.create_task(running.server.stop())
            assert json.loads(await anext(lines))["error"]["code"] == "STOPPING"
            assert [line async for line in lines] == []
            await stopping
        await services.idle()


async def test_streams_are_counted() -> None:
    async with serve_streams() as services, gateway(services, max_streams=3, tenant_streams=2) as running:
        services.script = lambda: silence("a")
        async with asked(running, EXPORT_PATH), asked(running, EXPORT_PATH):
            await eventually(lambda: len(running.built.streams) == 2, "two streams")
            async with running.client() as http, running.client("other") as other:
                refused = await http.get(EXPORT_PATH)
                assert (refused.status_code, refused.json()["code"]) == (429, "TENANT_STREAMS_EXHAUSTED")
                assert refused.headers["retry-after"] == "1"
                async with asked(running, EXPORT_PATH, "third"):
                    await eventually(lambda: len(running.built.streams) == 3, "three streams")
                    refused = await other.get(EXPORT_PATH)
                    assert (refused.status_code, refused.json()["code"]) == (503, "STREAMS_EXHAUSTED")
                await eventually(lambda: len(running.built.streams) == 2, "one to be gone")
                async with other.stream("GET", EXPORT_PATH) as answer:
                    assert answer.status_code == 200
        await services.idle()


@pytest.mark.parametrize(
    ("query", "header", "cursor"),
    [
        ("", "", ""),
        ("cursor=c", "", "c"),
        ("cursor=c&last_event_id=q", "", "q"),
        ("lastEventId=q&cursor=c", "h", "h"),
        ("cursor=c&tree_size=7", "h", "h"),
        ("cursor=c&last_event_id=", "", "c"),
    ],
)
async def test_where_a_stream_goes_on(
    http: httpx.AsyncClient, running: Running, query: str, header: str, cursor: str
) -> None:
    headers = {"last-event-id": header} if header else {}
    assert (await http.get(f"{EXPORT_PATH}?{query}", headers=headers)).status_code == 200
    assert running.services.requests[0].cursor == cursor


async def test_events_as_lines(http: httpx.AsyncClient, running: Running) -> None:
    running.services.script = lambda: heartbeats("c1", "c2")
    answer = await http.get(f"{SUBSCRIBE_PATH}?types=device.*&types=user.created")
    assert [json.loads(line)["heartbeat"]["cursor"] for line in answer.text.splitlines()] == ["c1", "c2"]
    assert list(running.services.requests[0].types) == ["device.*", "user.created"]


async def test_a_stream_that_is_counted_is_told_of_in_metrics(http: httpx.AsyncClient, running: Running) -> None:
    before = running.handled("OK")
    await http.get(EXPORT_PATH)
    assert running.handled("OK") == before + 1
