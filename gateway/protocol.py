"""Uvicorn's HTTP/1.1 protocol with the bounds that it lacks: size and time of a request's head, and how much of an
answered request's body is still read."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from chassis.config import Gateway

DISCARDED_BYTES: Final = 16 * 1024 * 1024
"""A refused body is read on up to here, so that the client sees the answer rather than a reset connection."""


def answer_whole(send: object, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Send an answer in one write, where ASGI's two events make two, each a system call, and packet, of its own. False
    when this is not an answer for it: `send` is not uvicorn's, the client is slow or gone, or the connection is to be
    closed."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        return False
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or not cycle.keep_alive:
        return False
    lines = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) // 4 + 2 or head.count(b"\r") != len(lines) // 4 + 2:
        return False  # a header with a line break in it: uvicorn refuses it
    cycle.response_started = True
    cycle.transport.write(head + body)
    cycle.response_complete = True
    cycle.message_event.set()
    cycle.on_response()
    return True


def drop(send: object) -> bool:
    """Reset the connection of an answer whose client does not read it: to close it properly would wait for the client.
    False when `send` is not uvicorn's."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        return False
    cycle.transport.abort()
    return True


def _answer(status: int, title: str, code: str, detail: str, more: str = "") -> bytes:
    document = {"type": f"urn:bas:problem:{code}", "title": title, "status": status, "detail": detail}
    body = json.dumps(document | {"instance": "", "code": code}).encode()
    head = f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
    return f"{head}{more}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


_TOO_LARGE: Final = _answer(
    431, "Request Header Fields Too Large", "HEAD_TOO_LARGE", "The request line and headers are too large."
)
_TOO_MANY: Final = _answer(
    503,
    "Service Unavailable",
    "CONNECTIONS_EXHAUSTED",
    "The gateway has as many connections as it takes.",
    "retry-after: 1\r\n",
)
_NO_HTTP: Final = _answer(400, "Bad Request", "MALFORMED_REQUEST", "This is not a valid HTTP/1.1 request.")


class Connected:
    """A client's connection whose answer somebody else writes, with `write` and nothing between (`gateway.sse.port` says
    what each part does). Its end is the end of the answer."""

    __slots__ = ("_lost", "_transport", "get_write_buffer_size", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._lost: Callable[[], None] | None = None
        self.write: Callable[[bytes], None] = transport.write
        self.get_write_buffer_size: Callable[[], int] = transport.get_write_buffer_size

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def when_lost(self, lost: Callable[[], None]) -> None:
        """Call `lost` once the connection is gone."""
        self._lost = lost

    def lost(self) -> None:
        if self._lost is not None:
            self._lost()
            self._lost = None


def take_over(send: object, headers: list[tuple[bytes, bytes]], body: bytes) -> Connected | None:
    """Answer 200 with these headers and the beginning of a body, and hand the connection out: the application may return
    while it lives. The body ends with the connection (RFC 9112 §6.3, rule 8), for HTTP/1.0 clients, too: chunks would
    have to be made for each kind of client. None when the client is gone, or `send` is not uvicorn's."""
    cycle = getattr(send, "__self__", None)
    protocol = getattr(getattr(cycle, "on_response", None), "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or not isinstance(protocol, BoundedProtocol):
        return None
    if cycle.disconnected or cycle.response_started or cycle.transport.is_closing():
        return None
    lines = [STATUS_LINE[200]]
    for name, value in (*cycle.default_headers, *headers):
        if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
            raise ValueError("A header has characters that none may have.")
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"connection: close\r\n\r\n")
    cycle.response_started = cycle.response_complete = True
    cycle.keep_alive = False
    cycle.message_event.set()
    connected = Connected(cycle.transport)
    protocol.hand_out(connected)
    connected.write(b"".join(lines) + body)
    return connected


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The size of a head is counted by what arrives, not by its headers: that costs nothing."""

    def __init__(self, *args: Any, bounds: Gateway, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most_head = bounds.max_head
        self._most_connections = bounds.max_connections
        self._head_seconds = bounds.head_timeout
        self._in_head = False
        self._head = 0
        self._arrived = 0
        self._discarded = 0
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._handed_out: Connected | None = None

    def hand_out(self, connected: Connected) -> None:
        """The connection is somebody else's from here on; what a request needed is let go of."""
        self._handed_out = connected
        self._discarded = 0
        self._disarm()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self.parser = self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        self.url = b""
        self.flow.resume_reading()  # or its end would not be seen

    def shutdown(self) -> None:
        if self._handed_out is None:  # who has it says goodbye in its own time
            super().shutdown()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        if self._handed_out is not None:
            self._handed_out.lost()
            self._handed_out = None

    def data_received(self, data: bytes) -> None:
        if self._handed_out is not None:
            self._discarded += len(data)  # a request after one whose answer has no end
            if self._discarded > DISCARDED_BYTES:
                self.transport.abort()
            return
        self._arrived = len(data)
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > self._most_head:
                self._refuse()
            elif self._head_timer is None:
                self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head = 0
        self._discarded = 0

    def on_headers_complete(self) -> None:
        self._disarm()
        self._in_head = False
        if self._head + self._arrived > self._most_head and self._head_size() > self._most_head:
            self._refuse()
        elif len(self.connections) > self._most_connections:
            self._refuse(_TOO_MANY)
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > DISCARDED_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        del msg
        if not self.transport.is_closing():
            self.transport.write(_NO_HTTP)
            self.transport.close()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, answer: bytes = _TOO_LARGE) -> None:
        if not self._refused and not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
        self._refused = True

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self._head_seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
