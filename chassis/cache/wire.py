"""One connection's protocol: commands out in one write a loop tick, replies in, matched by their order (RESP2).

RESP2 and not RESP3: the port's replies are integers, bytes, lists and nil, and RESP2 pushes nothing between replies.
"""

import asyncio
from collections import deque
from typing import Final, cast

import hiredis

from chassis.cache.port import CacheUnavailable, Reply

_WRITE_BUFFER: Final = 8 * 1024 * 1024
"""Unsent bytes above which no further command is taken: two of the largest messages."""


class ReplyError(RuntimeError):
    """The server understood and refused: `code` is the first word (`WRONGTYPE`, `NOSCRIPT`, `ERR`)."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class Wire(asyncio.Protocol):
    """`lost` is done once the connection has ended, with the reason; commands in flight have failed by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost: asyncio.Future[str] = loop.create_future()
        self.waiting: deque[asyncio.Future[Reply]] = deque()
        self.full = False
        self._loop = loop
        self._out: list[bytes] = []
        self._reader = hiredis.Reader(replyError=ReplyError, protocolError=ConnectionError)
        self._transport: asyncio.Transport | None = None

    def send(self, packed: bytes, reply: "asyncio.Future[Reply]") -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self.waiting.append(reply)

    def end(self, why: str) -> None:
        """Close without waiting: what was not sent is not sent."""
        if not self.lost.done():
            self.lost.set_result(why)
        if self._transport is not None:
            self._transport.abort()
        for reply in self.waiting:
            if not reply.done():
                reply.set_exception(CacheUnavailable("The connection to the cache was lost."))
        self.waiting.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.end("lost")

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self.waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                # A reply whose caller timed out or was cancelled is taken in its turn and dropped.
                reply = waiting.popleft()
                if reply.done():
                    continue
                if isinstance(answer, ReplyError):
                    reply.set_exception(answer)
                else:
                    reply.set_result(answer)
        except (ConnectionError, IndexError):
            # Not RESP, or more replies than commands: nothing that follows could be trusted.
            self.end("protocol")

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost.done():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
