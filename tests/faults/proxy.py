"""A way to a server that suffers as networks do: slow, narrow, silent one way or both, cut. TCP and Unix sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Flag, auto
from typing import Final

_CHUNK: Final = 65536


class Way(Flag):
    """UP is from the client to the server."""

    UP = auto()
    DOWN = auto()
    BOTH = UP | DOWN


class Proxy:
    """Listens at `address` and passes bytes to `target` and back; both are `host:port`, or the path of a Unix socket.

    `delay` is the time in seconds that each piece is kept back, `rate` the bytes a second of one connection and way
    (None: any number). `hold` keeps the bytes of a way, as a network does that loses all packets (what is held comes when
    it is let go, as what is sent again would); connections are taken meanwhile, and nothing comes of them. `cut` ends
    all connections and refuses new ones, until `mend`. `target` may change: it counts for connections that are new.
    """

    def __init__(self, address: str, target: str) -> None:
        self.address = address
        self.target = target
        self.delay = 0.0
        self.rate: float | None = None
        self.passed = 0
        self._open = {Way.UP: asyncio.Event(), Way.DOWN: asyncio.Event()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.release()

    @property
    def connections(self) -> int:
        return len(self._tasks)

    async def start(self) -> None:
        """Listen; a port of 0 is any that is free, and `address` says then which."""
        await self.mend()

    async def stop(self) -> None:
        await self.cut()

    def hold(self, way: Way = Way.BOTH) -> None:
        for each in way:
            self._open[each].clear()

    def release(self) -> None:
        """Let go what is held, both ways."""
        for each in self._open.values():
            each.set()

    async def cut(self) -> None:
        """Refuse, and end what there is without a word. What was on its way is lost."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.reset()

    async def reset(self) -> None:
        """End the connections that there are; new ones are taken."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def mend(self) -> None:
        if self._server is not None:
            return
        host, colon, port = self.address.rpartition(":")
        if not colon:
            self._server = await asyncio.start_unix_server(self._accepted, self.address)
            return
        self._server = await asyncio.start_server(self._accepted, host, int(port))
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio would make complains when it is cancelled.
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways: list[asyncio.Task[None]] = []
        ends = [writer]
        try:
            await self._open[Way.UP].wait()
            far_reader, far_writer = await self._connect()
            ends.append(far_writer)
            ways.append(asyncio.create_task(self._pass(reader, far_writer, Way.UP)))
            ways.append(asyncio.create_task(self._pass(far_reader, writer, Way.DOWN)))
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, colon, port = self.target.rpartition(":")
        if not colon:
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(host, int(port))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        opened = self._open[way]
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                await opened.wait()
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
            # What was written last is to arrive before the connection is ended.
            if writer.can_write_eof():
                writer.write_eof()
                await asyncio.sleep(0)


@asynccontextmanager
async def proxy(target: str, address: str = "127.0.0.1:0") -> AsyncIterator[Proxy]:
    made = Proxy(address, target)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
