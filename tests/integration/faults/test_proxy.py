"""The proxy passes what it is given, and does to it what it is told, on both kinds of sockets."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy, Way, proxy

BOUND = 30.0


class Echo:
    """A server that answers with what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Proxy, Echo]]:
    with tempfile.TemporaryDirectory(prefix="bas-") as folder:
        echo = Echo()
        if request.param == "tcp":
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            target, address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "127.0.0.1:0"
        else:
            target, address = str(Path(folder) / "echo.sock"), str(Path(folder) / "proxy.sock")
            server = await asyncio.start_unix_server(echo, target)
        async with proxy(target, address) as way:
            yield way, echo
        server.close()


@asynccontextmanager
async def connected(way: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, colon, port = way.address.rpartition(":")
    reader, writer = (
        await asyncio.open_connection(host, int(port)) if colon else await asyncio.open_unix_connection(way.address)
    )
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(reader: asyncio.StreamReader, size: int) -> bytes:
    async with asyncio.timeout(BOUND):
        return await reader.readexactly(size)


async def test_what_is_sent_arrives(rig: tuple[Proxy, Echo]) -> None:
    way, echo = rig
    async with connected(way) as (reader, writer):
        sent = bytes(range(256)) * 4096
        writer.write(sent)
        assert await said(reader, len(sent)) == sent
        assert echo.heard == sent
        assert way.passed == 2 * len(sent)


async def test_what_is_delayed_arrives_late(rig: tuple[Proxy, Echo]) -> None:
    way, _ = rig
    loop = asyncio.get_running_loop()
    way.delay = 0.05
    async with connected(way) as (reader, writer):
        began = loop.time()
        writer.write(b"hello")
        assert await said(reader, 5) == b"hello"
        assert loop.time() - began >= 0.1


async def test_a_narrow_way_passes_so_many_bytes_a_second(rig: tuple[Proxy, Echo]) -> None:
    way, _ = rig
    loop = asyncio.get_running_loop()
    way.rate = 100_000
    async with connected(way) as (reader, writer):
        began = loop.time()
        writer.write(b"x" * 10_000)
        await said(reader, 10_000)
        assert loop.time() - began >= 0.1


@pytest.mark.parametrize("held", [Way.UP, Way.DOWN, Way.BOTH])
async def test_what_is_held_comes_when_it_is_let_go(rig: tuple[Proxy, Echo], held: Way) -> None:
    way, echo = rig
    async with connected(way) as (reader, writer):
        writer.write(b"one")
        assert await said(reader, 3) == b"one"
        way.hold(held)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        if Way.UP in held:
            assert echo.heard == b"one"
        way.release()
        assert await said(reader, 3) == b"two"
        assert echo.heard == b"onetwo"


async def test_what_is_cut_is_over_and_refused_until_it_is_mended(rig: tuple[Proxy, Echo]) -> None:
    way, _ = rig
    async with connected(way) as (reader, writer):
        writer.write(b"one")
        await said(reader, 3)
        assert way.connections == 1
        await way.cut()
        assert way.connections == 0
        async with asyncio.timeout(BOUND):
            with suppress(OSError):
                assert await reader.read() == b""
    with pytest.raises(ConnectionError if ":" in way.address else OSError):
        async with connected(way):
            pass
    await way.mend()
    async with connected(way) as (reader, writer):
        writer.write(b"two")
        assert await said(reader, 3) == b"two"


async def test_a_target_that_is_away_ends_the_connection(rig: tuple[Proxy, Echo]) -> None:
    way, _ = rig
    way.target = way.target + "0" if ":" not in way.target else "127.0.0.1:1"
    async with connected(way) as (reader, _):
        async with asyncio.timeout(BOUND):
            with suppress(OSError):
                assert await reader.read() == b""
