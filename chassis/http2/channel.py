"""A channel: the connections to every address behind one name, kept up in the background, used in turn."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from chassis.http2.connection import Connection
from chassis.http2.grpc import Failure, Head, NotSent

_CONNECT: Final = 1.0
"""Seconds for one look-up, and for one connection."""
_FIRST: Final = 0.1
_LONGEST: Final = 1.0
"""Seconds between two attempts while nothing is connected."""
_LOOK_AGAIN: Final = 10.0
"""Seconds after which the name is looked up again: a replica may have come."""
_MOST_ADDRESSES: Final = 64
_ATTEMPTS: Final = 6
_REFUSED_WAIT: Final = 0.001
"""Seconds after the first refusal, four times as long after each further one: a busy peer counts calls that have ended."""
_UNAVAILABLE, _DEADLINE_EXCEEDED = 14, 4

Address = tuple[str, int]
Send = Callable[[bytes, float, Iterable[tuple[str, str]]], Awaitable[bytes]]
"""(request, seconds, metadata) → response. Raises Failure; cancelling it cancels the call."""


class Channel:
    """`address` is `host:port`, `[v6]:port`, `dns:///host:port` or `unix:/path`. To be made in a running loop; `random`
    gives [0, 1) and spreads the attempts of many clients."""

    def __init__(self, address: str, *, max_response: int, random: Callable[[], float]) -> None:
        """Raises ValueError for an address of another form."""
        self._host, self._port, self._path = _parse(address)
        self._max_response = max_response
        self._random = random
        self._authority = "localhost" if self._path else address.removeprefix("dns:///")
        self._connections: dict[Address, Connection] = {}
        self._usable: list[Connection] = []
        self._turn = 0
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"channel {address}")

    def unary(self, path: str) -> Send:
        """The method at a gRPC path; keep it, it is made to be called often."""
        block, time = Head(path, self._authority).block, asyncio.get_running_loop().time

        async def send(request: bytes, seconds: float, metadata: Iterable[tuple[str, str]]) -> bytes:
            until = time() + seconds
            head = block(seconds, metadata)
            for attempt in range(_ATTEMPTS):
                if attempt:
                    await asyncio.sleep(min(_REFUSED_WAIT * 4 ** (attempt - 1), max(0.0, until - time())))
                connection = self._pick() or await self._arrival(until - time())
                try:
                    stream = connection.begin(head, request, until)
                except NotSent:
                    continue
                try:
                    return await stream.answer
                except NotSent:
                    continue
                except asyncio.CancelledError:
                    connection.abandon(stream)
                    raise
            raise Failure(_UNAVAILABLE, "The service takes no calls.")

        return send

    async def close(self) -> None:
        """End the calls in progress and the connections."""
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        for connection in tuple(self._connections.values()):
            connection.close()
        self._connections.clear()
        self._usable.clear()
        self._tried.set()

    def _pick(self) -> Connection | None:
        usable = self._usable
        if not usable:
            return None
        self._turn = (self._turn + 1) % len(usable)
        return usable[self._turn]

    async def _arrival(self, seconds: float) -> Connection:
        """The connection that an attempt in progress brings. Raises Failure, at once when there is none in progress."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._tried.wait()
        connection = self._pick()
        if connection is None:  # a deadline that passes without a connection says nothing of the service but this
            raise Failure(_UNAVAILABLE, "The service cannot be reached.")
        return connection

    async def _keep(self) -> None:
        delay = _FIRST
        while True:
            self._changed.clear()
            complete = await self._connect()
            self._tried.set()
            if complete:
                delay = _FIRST
                await self._pause(_LOOK_AGAIN, until_changed=True)
            else:
                spread = 0.8 + 0.4 * self._random()
                await self._pause(delay * spread, until_changed=bool(self._usable))
                delay = min(2 * delay, _LOOK_AGAIN if self._usable else _LONGEST)
            self._tried.clear()

    async def _pause(self, seconds: float, *, until_changed: bool) -> None:
        if not until_changed:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _connect(self) -> bool:
        """Connect to every address that is not, and leave those that are no more. Whether all are connected."""
        try:
            async with asyncio.timeout(_CONNECT):
                addresses = await self._resolve()
        except (OSError, TimeoutError, UnicodeError):
            return False  # what is connected stays
        for address in [each for each in self._connections if each not in addresses]:
            self._connections[address].retire()
        missing = [each for each in addresses if each not in self._connections]
        return all(await asyncio.gather(*(self._open(address) for address in missing)))

    async def _resolve(self) -> list[Address]:
        if self._path:
            return [(self._path, 0)]
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found))[:_MOST_ADDRESSES]

    async def _open(self, address: Address) -> bool:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None

        def made() -> Connection:
            return Connection(self._max_response, lambda gone: self._lost(address, gone))

        try:
            async with asyncio.timeout(_CONNECT):
                if self._path:
                    _, connection = await loop.create_unix_connection(made, address[0])
                else:
                    _, connection = await loop.create_connection(made, *address)
                # A server's kernel accepts connections before the server does: it is there when it has spoken.
                await connection.ready
        except (OSError, TimeoutError):
            if connection is not None:
                connection.close()
            return False
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        if not connection.usable:
            return False
        self._connections[address] = connection
        self._usable.append(connection)
        return True

    def _lost(self, address: Address, connection: Connection) -> None:
        if connection in self._usable:
            self._usable.remove(connection)
        if self._connections.get(address) is connection:
            del self._connections[address]
        if not self._usable:
            self._tried.clear()  # the attempt that follows is worth waiting for
        self._changed.set()


def _parse(address: str) -> tuple[str, int, str]:
    """(host, port, "") or ("", 0, path)."""
    if address.startswith("unix:"):
        return "", 0, address.removeprefix("unix:").removeprefix("//")
    host, colon, port = address.removeprefix("dns:///").rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not address.isascii():
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port), ""
