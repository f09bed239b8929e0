"""Event streams as browsers get them, over real connections."""

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chassis.api.cursors import Position
from chassis.config import Seconds
from chassis.errors import ApiError, Code, invalid_field, unavailable
from tests.integration.gateway.listeners import ORIGIN, PATH, Listener, Serving, serving
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.sse import parse

pytestmark = pytest.mark.asyncio(loop_scope="module")

Listen = Callable[..., Awaitable[Listener]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Serving]:
    async with serving(stream_heartbeat=Seconds(0.2), stream_retry=Seconds(2)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: Serving) -> AsyncIterator[Serving]:
    shared.events.refusal = None
    yield shared
    await eventually(lambda: len(shared.hub) == 0, "no connection to be left")


@pytest_asyncio.fixture(loop_scope="module")
async def listen(gateway: Serving) -> AsyncIterator[Listen]:
    opened: list[Listener] = []

    async def one(*args: Any, **headers: Any) -> Listener:
        opened.append(await gateway.listen(*args, **headers))
        return opened[-1]

    yield one
    for each in opened:
        await each.close()


async def test_head_and_first_bytes_come_at_once(listen: Listen) -> None:
    listener = await listen()
    await listener.until(lambda each: each.parser.retry is not None, "a time to come back after")
    assert listener.status == 200
    lines = listener.head.split("\r\n")
    assert "content-type: text/event-stream; charset=utf-8" in lines
    assert "cache-control: no-store, no-transform" in lines
    assert "x-accel-buffering: no" in lines
    assert "connection: close" in lines
    assert "content-encoding" not in listener.head
    assert "transfer-encoding" not in listener.head
    assert "x-request-id" in listener.head
    assert listener.body.startswith(b":")
    assert listener.parser.retry is not None
    assert 1000 <= listener.parser.retry <= 3000


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_events_reach_clients_of_each_version(gateway: Serving, listen: Listen, version: str) -> None:
    listener = await listen("?types=device.*", version)
    published = [gateway.events.publish(data="é\r\n\u2028"), gateway.events.publish(type_="user.made")]
    published.append(gateway.events.publish())
    await listener.count(2)
    assert listener.ids() == [published[0].cursor, published[2].cursor]
    document = json.loads(listener.parser.events[0].data)
    assert document["type"] == listener.names()[0] == "device.online"
    assert document["data"] == "é\r\n\u2028"
    assert document["specversion"] == "1.0"


async def test_common_clients_read_it(gateway: Serving) -> None:
    cursor = gateway.events.cursor()
    expected = [gateway.events.publish().cursor for _ in range(3)]
    headers = {"authorization": "Bearer acme", "last-event-id": cursor}
    got = b""
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=patience.CLIENT, headers=headers) as client,
        client.stream("GET", PATH) as answer,
    ):
        async for chunk in answer.aiter_bytes():
            got += chunk
            if len(parse(got).events) == 3:
                break
    assert [each.last_event_id for each in parse(got).events] == expected


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
async def test_curl_reads_it(gateway: Serving, version: str) -> None:
    cursor = gateway.events.cursor()
    gateway.events.publish()
    url = f"{gateway.url}{PATH}?last_event_id={cursor}"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", version, "-H", "authorization: Bearer acme", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    got = b""
    async with asyncio.timeout(patience.CLIENT):
        while not parse(got).events:
            got += await process.stdout.read(1000)
        process.terminate()
        await process.wait()


async def test_an_origin_that_is_allowed(gateway: Serving, listen: Listen) -> None:
    listener = await listen(origin=ORIGIN)
    assert f"access-control-allow-origin: {ORIGIN}" in listener.head
    assert "access-control-allow-origin" not in (await listen(origin="https://evil.example")).head
    async with httpx.AsyncClient(base_url=gateway.url, timeout=patience.CLIENT) as client:
        asked = {"origin": ORIGIN, "access-control-request-method": "GET"}
        preflight = await client.options(PATH, headers=asked | {"access-control-request-headers": "last-event-id"})
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "last-event-id" in preflight.headers["access-control-allow-headers"].lower()


async def test_the_header_says_where_to_go_on_and_wins(gateway: Serving, listen: Listen) -> None:
    cursors = [gateway.events.publish().cursor for _ in range(4)]
    by_header = await listen(f"?last_event_id={cursors[0]}", last_event_id=cursors[2])
    by_query = await listen(f"?last_event_id={cursors[1]}")
    await by_header.count(1)
    await by_query.count(2)
    assert (by_header.ids(), by_query.ids()) == (cursors[3:], cursors[2:])


@pytest.mark.parametrize("cursor", ["garbage", "e1.1.AAAAAAAAAAAA"])
async def test_a_cursor_that_is_none_is_refused_before_the_stream(listen: Listen, cursor: str) -> None:
    listener = await listen(last_event_id=cursor)
    assert listener.status == 400
    assert "application/problem+json" in listener.head


async def test_who_may_not_is_told_by_a_status(gateway: Serving, listen: Listen) -> None:
    assert (await listen(token="nobody")).status == 403
    gateway.events.refusal = invalid_field("types[0]", "No.")
    assert (await listen("?types=%2Ax")).status == 400
    async with httpx.AsyncClient(base_url=gateway.url, timeout=patience.CLIENT) as client:
        assert (await client.get(PATH)).status_code == 401


@pytest.mark.parametrize(
    "problem",
    [
        unavailable("EVENTS_UNAVAILABLE", "Away."),
        ApiError(Code.RESOURCE_EXHAUSTED, "STREAMS_EXHAUSTED", "Full.", retry_after=1.0),
    ],
)
async def test_a_service_that_is_away_is_told_in_the_stream(
    gateway: Serving, listen: Listen, problem: ApiError
) -> None:
    gateway.events.refusal = problem
    listener = await listen("?subject=new")
    await listener.ended()
    assert (listener.status, listener.names()) == (200, ["end"])
    assert json.loads(listener.parser.events[0].data)["reason"] == "END_REASON_OVERLOADED"
    assert listener.parser.retry is not None
    assert listener.parser.retry >= 4000


async def test_it_stays_alive_in_silence(listen: Listen) -> None:
    listener = await listen()
    await listener.until(lambda each: len(each.parser.comments) >= 4, "heartbeats")
    assert listener.parser.events == []


async def test_a_client_that_leaves_is_forgotten(gateway: Serving, listen: Listen) -> None:
    stays, leaves = await listen(), await listen()
    await eventually(lambda: len(gateway.hub) == 2, "two connections")
    await leaves.close()
    await eventually(lambda: len(gateway.hub) == 1, "one connection")
    assert gateway.value("bas_gateway_streams") == 1
    gateway.events.publish()
    await stays.count(1)


async def test_what_a_client_sends_after_its_request_changes_nothing(gateway: Serving, listen: Listen) -> None:
    listener = await listen()
    listener.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
    gateway.events.publish()
    await listener.count(1)
    assert b"HTTP/1.1" not in listener.body


async def test_a_revoked_session_ends_its_stream(gateway: Serving, listen: Listen) -> None:
    revoked, other = await listen(token="bas_s1"), await listen(token="bas_s2")
    await eventually(lambda: len(gateway.events.streams) >= 2, "the sessions' events to be followed")
    gateway.sessions.revoked.add("s1")
    gateway.events.publish(type_="session.revoked", subject="sessions/s1", source="/bas/sessions")
    await revoked.ended()
    assert revoked.names()[-2:] == ["warning", "end"]
    assert json.loads(revoked.parser.events[-1].data)["reason"] == "END_REASON_SESSION_REVOKED"
    assert not other.over
    assert (await listen(token="bas_s1")).status == 401


async def test_a_position_that_is_gone_begins_with_a_gap(gateway: Serving, listen: Listen) -> None:
    listener = await listen(last_event_id=gateway.events.cursors.write("acme", Position("older", 3)))
    published = gateway.events.publish()
    await listener.count(2)
    assert listener.names()[0] == "gap"
    assert listener.ids()[1] == published.cursor


async def test_too_many_are_told_when_to_come_back() -> None:
    async with serving(tenant_streams=2, stream_retry=Seconds(2)) as gateway:
        listeners = [await gateway.listen() for _ in range(3)]
        await listeners[2].ended()
        assert (listeners[2].status, listeners[2].names()) == (200, ["end"])
        assert listeners[2].parser.retry is not None
        assert listeners[2].parser.retry >= 4000
        other = await gateway.listen(token="globex")
        assert not other.over
        for each in (*listeners, other):
            await each.close()


async def test_stopping_ends_all_streams_in_order() -> None:
    async with serving(drain=Seconds(5)) as gateway:
        listeners = [await gateway.listen() for _ in range(20)]
        await eventually(lambda: len(gateway.hub) == 20, "all connections")
        stopping = asyncio.create_task(gateway.server.stop())
        for each in listeners:
            await each.ended()
            assert each.names() == ["end"]
            assert json.loads(each.parser.events[0].data)["reason"] == "END_REASON_DRAINING"
        assert len({each.parser.retry for each in listeners}) > 1
        async with asyncio.timeout(patience.CLIENT):
            await stopping
        for each in listeners:
            await each.close()


async def test_the_stalled_cost_little_and_harm_nobody() -> None:
    async with AsyncExitStack() as closing, serving(stream_buffer=65536) as gateway:
        good = [await gateway.listen() for _ in range(2)]
        stalled = [closing.enter_context(await gateway.stalled()) for _ in range(50)]
        byte_by_byte = [closing.enter_context(await gateway.stalled()) for _ in range(3)]
        reading = [asyncio.create_task(_one_byte_at_a_time(each)) for each in byte_by_byte]
        await eventually(lambda: len(gateway.hub) == 55, "all connections")
        before, data = _resident(), "x" * 60_000
        published = []
        for count in range(1, 121):
            published.append(gateway.events.publish(data=data).cursor)
            if count % 10 == 0:
                for each in good:
                    await each.count(count)
        assert [each.ids() for each in good] == [published] * 2
        assert _resident() - before < 100 * 1024 * 1024
        assert gateway.value("bas_gateway_stream_slow_total", policy="disconnect") == len(stalled) + len(byte_by_byte)
        assert len(gateway.hub) == 2
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for sock in (*stalled, *byte_by_byte):
            sock.close()
        for each in good:
            await each.close()


async def _one_byte_at_a_time(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        if not await loop.sock_recv(sock, 1):
            return
        await asyncio.sleep(0.001)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
