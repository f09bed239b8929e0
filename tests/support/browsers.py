"""EventSources on raw sockets, a thousand of them if need be: strict readers that come back by themselves with
Last-Event-ID, after the time that they were told."""

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from chassis.api.cursors import Position, parse
from tests.support.continuity import Given, Reading, Skipped, position_of
from tests.support.eventually import eventually
from tests.support.sse import Dispatched, Parser

PATH = "/api/events/stream"
_HEAD = 60.0
"""Seconds for the head of an answer."""
_CHUNK = 1 << 16
_LIMIT = 1 << 17
_UNREACHED = 0.1
"""Seconds between attempts to connect to an address where nobody listens."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """An end that was announced: when, why, and the wait before coming back in seconds."""

    time: float
    reason: str
    retry: float


@dataclass(eq=False)
class Browser:
    """`addresses` are those of gateways, host:port, tried in turn. `hurry` shortens the waits it is told. `keep` keeps the
    events as they came."""

    addresses: Sequence[str]
    token: str
    query: str = ""
    hurry: float = 1.0
    keep: bool = False
    wants: Callable[[str], bool] = field(default=lambda _: True)
    turn: int = 0
    cursor: str = ""
    start: Position | None = None
    heard: "list[Given | Skipped]" = field(default_factory=list)
    events: list[Dispatched] = field(default_factory=list)
    goodbyes: list[Goodbye] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    connections: int = 0
    """Answers with status 200."""
    refused: int = 0
    """The status that ended it for good, as it does an EventSource."""
    connected: bool = False
    bytes: int = 0
    _retry: float = 3.0
    _task: "asyncio.Task[None] | None" = None
    _paused: bool = False
    _writer: asyncio.StreamWriter | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="browser")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def cut(self) -> None:
        """Lose the connection now, unread bytes and all."""
        if self._writer is not None:
            self._writer.transport.abort()

    @property
    def listens(self) -> bool:
        """It is connected, and knows from where on."""
        return self.connected and self.start is not None

    @property
    def position(self) -> Position | None:
        return parse(self.cursor)

    @property
    def reading(self) -> Reading:
        assert self.start is not None
        return Reading(self.start, self.heard, self.wants)

    @property
    def ids(self) -> list[str]:
        """Of the events that it had."""
        return [item.id for item in self.heard if isinstance(item, Given)]

    @property
    def gaps(self) -> list[Skipped]:
        return [item for item in self.heard if isinstance(item, Skipped)]

    async def _run(self) -> None:
        while not self.refused:
            wait = _UNREACHED
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                before = self.connections
                try:
                    await self._connect()
                finally:
                    # Whatever ends it: a writer that is dropped before its transport is closing is a warning.
                    self.connected = False
                    self.cut()
                    self._writer = None
                    if self.connections > before:
                        wait = self._retry * self.hurry
            if not self.refused:
                await asyncio.sleep(wait)

    async def _connect(self) -> None:
        host, _, port = self.addresses[self.turn % len(self.addresses)].removeprefix("http://").rpartition(":")
        self.turn += 1
        reader, self._writer = await asyncio.open_connection(host, int(port), limit=_LIMIT)
        last = f"last-event-id: {self.cursor}\r\n" if self.cursor else ""
        head = f"GET {PATH}{self.query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.token}\r\n{last}\r\n"
        self._writer.write(head.encode())
        async with asyncio.timeout(_HEAD):
            status = int((await reader.readuntil(b"\r\n\r\n")).split(None, 2)[1])
        if status != 200:
            self.refused = status
            return
        self.connections += 1
        parser = Parser()
        while data := await reader.read(_CHUNK):
            self.bytes += len(data)
            parser.feed(data)
            if parser.last_event_id:
                self.cursor = parser.last_event_id
            self._take(parser)
            self.connected = True

    def _take(self, parser: Parser) -> None:
        if self.start is None and parser.ids:
            self.start = position_of(parser.ids[0])
            parser.ids.clear()
        if parser.retry is not None:
            self._retry = parser.retry / 1000
        for each in parser.events:
            if self.keep:
                self.events.append(each)
            if each.name == "gap":
                told = json.loads(each.data)
                self.heard.append(Skipped(position_of(told["cursor"]), told["reason"]))
            elif each.name == "end":
                reason = json.loads(each.data)["reason"].removeprefix("END_REASON_")
                self.goodbyes.append(Goodbye(asyncio.get_running_loop().time(), reason, self._retry))
            elif each.name == "warning":
                self.warnings.append(json.loads(each.data)["reason"].removeprefix("END_REASON_"))
            else:
                self.heard.append(Given(position_of(each.last_event_id), _id_of(each.data), each.name))
        parser.events.clear()


def _id_of(data: str) -> str:
    # Ids of tests have no character that JSON escapes, and no attribute before the id has one.
    begin = data.index('"id":"') + 6
    return data[begin : data.index('"', begin)]


async def all_of(browsers: Sequence[Browser], condition: Callable[[Browser], bool], what: str) -> None:
    """Wait until each of them meets a condition."""

    def met() -> bool:
        return all(map(condition, browsers))

    def lagging() -> str:
        late = [each for each in browsers if not condition(each)]
        return (
            f"{what}: not {len(late)} of {len(browsers)}; the first: {late[0].cursor} {late[0].goodbyes[-1:]}"
            if late
            else what
        )

    try:
        await eventually(met, what, within=120.0, every=0.05)
    except AssertionError:
        raise AssertionError(lagging()) from None


async def stalled(address: str, token: str, query: str = "") -> socket.socket:
    """A connection whose answer nobody reads, with little room on the way."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_HEAD):
        await loop.sock_connect(sock, (host, int(port)))
        head = f"GET {PATH}{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        await loop.sock_sendall(sock, head.encode())
    return sock
