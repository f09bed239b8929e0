import asyncio
from collections.abc import AsyncIterator

import pytest

from launcher.probe import get, reachable


class Canned:
    """A server that answers every connection with the same bytes, or never."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self.answer is None:
            await reader.read()
        else:
            writer.write(self.answer)
        writer.close()


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    canned = Canned()
    server = await asyncio.start_server(canned.serve, "127.0.0.1", 0)
    canned.port = server.sockets[0].getsockname()[1]
    yield canned
    server.close()
    await server.wait_closed()


async def test_status_and_body(canned: Canned) -> None:
    canned.answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n\r\nwaiting: devices"
    answer = await get("0.0.0.0", canned.port, "/readyz", within=5.0)
    assert answer is not None
    assert (answer.status, answer.body) == (503, b"waiting: devices")


@pytest.mark.parametrize("garbage", [b"", b"hello", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_is_no_answer(canned: Canned, garbage: bytes) -> None:
    canned.answer = garbage
    assert await get("127.0.0.1", canned.port, "/", within=5.0) is None


async def test_silence_is_no_answer_after_the_bound(canned: Canned) -> None:
    canned.answer = None
    assert await get("127.0.0.1", canned.port, "/", within=0.05) is None


async def test_nobody_there_is_no_answer() -> None:
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    assert await get("127.0.0.1", port, "/", within=5.0) is None


def test_a_wildcard_is_reached_on_loopback() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "192.0.2.5")] == ["127.0.0.1", "::1", "192.0.2.5"]
