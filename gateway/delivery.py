"""A stream of messages on its way to one client."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chassis.errors import ApiError, internal
from chassis.interceptors.stream import FIRST, Stream
from gateway.departure import Departures
from gateway.negotiation import Form
from gateway.problems import Headers, problem
from gateway.protocol import drop
from gateway.request import Request, Send
from gateway.streams import Streams, stopping
from gateway.transcoding.codec import BadValue, JsonType

_GONE: Final = 1.0
"""Seconds for a reset connection to be known as gone."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in seconds: the time that a client may take to make room for the next piece of an answer; the longest silence
    of an event stream; the wait for a first message."""

    stall: float
    heartbeat: float
    first: float = FIRST


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands before and after a message, and before and after an error; what shows that a silent stream lives; what
    ends one that came to its end."""

    message: tuple[bytes, bytes]
    error: tuple[bytes, bytes]
    alive: bytes = b""
    end: bytes = b""


LAYOUTS: Final[Mapping[Form, Layout]] = {
    Form.NDJSON: Layout((b"", b"\n"), (b'{"error":', b"}\n")),
    Form.SSE: Layout(
        (b"data: ", b"\n\n"),
        (b"event: error\ndata: ", b"\n\n"),
        alive=b":\n\n",
        # A browser takes any end for a broken connection, and comes back; so its page is told that there is no more.
        end=b"event: end\ndata: {}\n\n",
    ),
}


class _Stalled(Exception):
    """The client reads no more."""


class Delivery:
    """The rest of `stream` as an answer's body; `first` is the message that was read already. Whoever does not let it
    `deliver` lets it `end`."""

    __slots__ = ("_bounds", "_departures", "_layout", "_request", "_stopped", "_stream", "_streams", "_type", "first")

    def __init__(
        self,
        stream: Stream,
        request: Request,
        layout: Layout,
        message: JsonType,
        departures: Departures,
        streams: Streams,
        bounds: Bounds,
    ) -> None:
        self._stream = stream
        self._request = request
        self._layout = layout
        self._type = message
        self._departures = departures
        self._streams = streams
        self._bounds = bounds
        self._stopped = False
        self.first: bytes | None = None

    def end(self) -> None:
        """Cancel the call; harmless when it has ended."""
        self._stream.cancel()
        self._streams.leave(self)

    def stop(self) -> None:
        """Come to an end because the process does."""
        self._stopped = True
        self._stream.cancel()

    async def deliver(self, status: int, headers: Headers, send: Send) -> None:
        """Answer. Returns when the answer is complete, or its client gone."""
        departure = self._departures.watch(self._request.receive)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if self._request.method == "HEAD":
                await self._write(send, b"", more=False)
            else:
                await self._pass_on(send)
        except _Stalled:
            self._departures.leave(departure)
            await self._cut(send)
        except asyncio.CancelledError:
            if not departure.happened:
                drop(send)
                raise
        finally:
            self._departures.leave(departure)
            self.end()

    async def _pass_on(self, send: Send) -> None:
        layout = self._layout
        before, after = layout.message
        try:
            message = self.first
            while message is not None:
                await self._write(send, before + self._json(message) + after)
                message = await (self._next(send) if layout.alive else self._read())
            last = self._error(stopping()) if self._stopped else layout.end
        except ApiError as error:
            last = self._error(error)
        await self._write(send, last, more=False)

    async def _read(self) -> bytes | None:
        return await anext(self._stream, None)

    async def _next(self, send: Send) -> bytes | None:
        """As `_read`, and a sign of life whenever that takes long."""
        reading = asyncio.create_task(self._read())
        try:
            while not (await asyncio.wait({reading}, timeout=self._bounds.heartbeat))[0]:
                await self._write(send, self._layout.alive)
            return reading.result()
        finally:
            reading.cancel()

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._bounds.stall):
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise _Stalled from None

    async def _cut(self, send: Send) -> None:
        """End the connection of a client that takes nothing more: nothing that is written would arrive."""
        if not drop(send):
            return  # a server that sees an answer without its end closes the connection
        async with asyncio.timeout(_GONE):
            while (await self._request.receive())["type"] != "http.disconnect":
                pass

    def _json(self, message: bytes) -> bytes:
        try:
            return self._type.from_binary(message).json()
        except BadValue:
            raise internal() from None

    def _error(self, error: ApiError) -> bytes:
        before, after = self._layout.error
        return before + problem(error, self._request.request_id)[2] + after
