"""Calls that are answered by a stream, through the client chain and against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from chassis import context
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.errors import ApiError, Code, not_found
from chassis.interceptors.stream import StreamCall
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running
from tests.integration.chassis.test_channel import client_of
from tests.support import echo, patience
from tests.support.eventually import eventually

PATH = f"/{echo.NAME}/ServerStream"
LARGE = 64 * 1024


def spell(text: str) -> bytes:
    return bytes(echo.Word(text=text).SerializeToString())


def text_of(message: bytes) -> str:
    return str(echo.Word.FromString(message).text)


@pytest.fixture
def seen() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(running: Running, seen: Metrics) -> AsyncIterator[Client]:
    made = client_of(f"127.0.0.1:{running.server.port}", seen)
    yield made
    await made.close()


@pytest.fixture
def call(client: Client) -> StreamCall:
    return client.stream(PATH)


def handled(seen: Metrics, code: str) -> float:
    labels = {
        "grpc_type": "server_stream",
        "grpc_service": echo.NAME,
        "grpc_method": "ServerStream",
        "grpc_code": code,
    }
    return seen.registry.get_sample_value("grpc_client_handled_total", labels) or 0.0


async def hang(text: str) -> str:
    if text == "!":
        await asyncio.Event().wait()
    return text


async def test_messages_come_in_order_and_end(running: Running, call: StreamCall, seen: Metrics) -> None:
    async with call(spell("abc"), running.bearer(), first=patience.CALL) as stream:
        assert [text_of(message) async for message in stream] == ["a", "b", "c"]
        assert await anext(stream, None) is None, "an end stays an end"
    assert (handled(seen, "OK"), handled(seen, "CANCELLED")) == (1, 0)


async def test_an_error_is_typed_wherever_it_comes(running: Running, call: StreamCall, seen: Metrics) -> None:
    async def fail(text: str) -> str:
        if text == "!":
            raise not_found("device", "d1")
        return text

    running.echo.act = fail
    for word, before in (("!", 0), ("ab!", 2)):
        stream = call(spell(word), running.bearer(), first=patience.CALL)
        got = [await anext(stream) for _ in range(before)]
        assert len(got) == before
        with pytest.raises(ApiError) as failed:
            await anext(stream)
        assert (failed.value.code, failed.value.reason) == (Code.NOT_FOUND, "DEVICE_NOT_FOUND")
        assert await anext(stream, None) is None
    assert handled(seen, "NOT_FOUND") == 2


async def test_who_has_no_credential_is_told_so(running: Running, call: StreamCall) -> None:
    with pytest.raises(ApiError) as refused:
        await anext(call(spell("a"), first=patience.CALL))
    assert refused.value.code is Code.UNAUTHENTICATED


async def test_a_service_that_is_not_there_is_unavailable_and_shows_no_address(seen: Metrics) -> None:
    client = client_of("127.0.0.1:1", seen)
    with pytest.raises(ApiError) as away:
        await anext(client.stream(PATH)(spell("a"), first=patience.CALL))
    assert (away.value.code, away.value.retry_after) == (Code.UNAVAILABLE, 1.0)
    assert "127" not in away.value.message
    await client.close()


@pytest.mark.parametrize("how", ["cancel", "leave", "task"])
async def test_ending_it_ends_the_work(running: Running, call: StreamCall, seen: Metrics, how: str) -> None:
    running.echo.act = hang
    stream = call(spell("a!"), running.bearer(), first=patience.CALL)
    async with stream:
        await anext(stream)
        reading: asyncio.Task[Any] = asyncio.create_task(_next(stream))
        await eventually(lambda: len(running.echo.calls) == 2, "the work to go on")
        if how == "cancel":
            stream.cancel()
            assert await reading is None, "who reads is told that it is over"
        elif how == "task":
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
    if how == "leave":
        assert await reading is None
    async with asyncio.timeout(30):
        await running.echo.cancelled.wait()
    assert handled(seen, "CANCELLED") == 1


async def _next(stream: Any) -> bytes | None:
    return await anext(stream, None)


async def connected(running: Running, call: StreamCall) -> None:
    """What has little time does not spend it on the way to the server."""
    async with call(spell("a"), running.bearer(), first=patience.CALL) as stream:
        assert [text_of(message) async for message in stream] == ["a"]
    running.echo.calls.clear()


async def test_only_the_first_message_is_waited_for_with_a_bound(
    running: Running, call: StreamCall, seen: Metrics
) -> None:
    running.echo.act = hang
    await connected(running, call)
    with pytest.raises(ApiError) as late:
        await anext(call(spell("!"), running.bearer(), first=3.0))
    assert late.value.code is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.echo.cancelled.wait(), 30)
    assert handled(seen, "DEADLINE_EXCEEDED") == 1
    slow = asyncio.Event()

    async def wait(text: str) -> str:
        if text == "!":
            await slow.wait()
        return text

    running.echo.act = wait
    async with call(spell("a!"), running.bearer(), first=patience.CALL) as stream:
        await anext(stream)
        reading = asyncio.create_task(_next(stream))
        done, _ = await asyncio.wait({reading}, timeout=0.3)
        assert not done
        slow.set()
        assert await reading is not None


async def test_the_deadline_of_the_call_in_progress_holds(running: Running, call: StreamCall) -> None:
    running.echo.act = hang
    await connected(running, call)
    token = context.enter(context.Call("/x/Y", "r-9", SystemClock().monotonic() + 3.0))
    stream = call(spell("!"), running.bearer(), first=patience.CALL)
    context.leave(token)
    with pytest.raises(ApiError) as late:
        await anext(stream)
    assert late.value.code is Code.DEADLINE_EXCEEDED
    for seen in running.echo.calls:
        assert seen is not None
        assert seen.request_id == "r-9"


async def test_what_nobody_reads_waits_where_it_is_made(running: Running, call: StreamCall) -> None:
    made = 0

    async def large(text: str) -> str:
        nonlocal made
        made += 1
        return text * LARGE

    running.echo.act = large
    async with call(spell("x" * 500), running.bearer(), first=patience.CALL) as stream:
        await anext(stream)
        before = -1
        while before != made:
            before = made
            await asyncio.sleep(0.3)
        assert made < 50, "a few in the window, not thirty megabytes"
        rest = [message async for message in stream]
    assert len(rest) == 499
    assert made == 500


async def test_closing_the_client_ends_its_streams(running: Running, client: Client, call: StreamCall) -> None:
    running.echo.act = hang
    stream = call(spell("a!"), running.bearer(), first=patience.CALL)
    await anext(stream)
    reading = asyncio.create_task(_next(stream))
    await eventually(lambda: len(running.echo.calls) == 2, "the work to go on")
    await client.close()
    with pytest.raises(ApiError) as closed:
        await reading
    assert (closed.value.code, closed.value.reason) == (Code.UNAVAILABLE, "STOPPING")
    await asyncio.wait_for(running.echo.cancelled.wait(), 30)


def test_no_channel_is_opened_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def made() -> int:
        opened: list[grpc.aio.Channel] = []
        client = client_of("127.0.0.1:1", Metrics())
        monkeypatch.setattr("chassis.channel.open_channel", lambda *_: opened.append(1))  # type: ignore[arg-type]
        client.stream(PATH)
        await client.close()
        return len(opened)

    assert asyncio.run(made()) == 0
