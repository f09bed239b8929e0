"""One HTTP/2 connection (RFC 9113) to a gRPC server: unary calls out, their answers back.

What is written within one turn of the loop leaves in one write, and one timer serves all deadlines. Everything is
bounded: frames, header blocks, answers, and the calls that wait for the peer's windows.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from chassis.http2.grpc import Failure, NotSent, http_failure, reset_failure, trailers_of, unframe
from chassis.http2.hpack import HpackError, decode

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_END_STREAM: Final = 0x1
_ACK: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITISED: Final = 0x20
_TABLE_SIZE, _ENABLE_PUSH, _MOST_STREAMS, _INITIAL_WINDOW, _FRAME_SIZE = 1, 2, 3, 4, 5
_NO_ERROR, _PROTOCOL_ERROR, _CANCEL = 0, 1, 8

_FRAME_HEAD: Final = 9
_FRAME: Final = 16_384
"""The largest frame that we take: what every endpoint must."""
_BLOCK: Final = 65_536
"""The largest header block that we take."""
_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = 2**31 - 1
_OUR_WINDOW: Final = 16 * 1024 * 1024
_WAITING: Final = 1_000
"""Calls that wait for the peer to take more; another is refused."""
_LAST_STREAM: Final = 2**30
"""The connection is replaced before its numbers run out."""
_REMEMBERED: Final = 64
_TICK: Final = 0.01
"""Seconds by which a deadline may be late."""
_UNANSWERED: Final = 10_000
"""Milliseconds after which bytes that the peer does not acknowledge end the connection."""


class ProtocolError(Exception):
    """The peer breaks the protocol; the text says how."""


class Stream:
    """One call: its answer to come, and what of its request is still to be sent."""

    __slots__ = ("answer", "began", "chunks", "head", "number", "rest", "size", "until", "window")

    def __init__(self, answer: "asyncio.Future[bytes]", until: float) -> None:
        self.answer = answer
        self.until = until
        self.number = 0
        self.chunks: list[bytes] = []
        self.size = 0
        self.began = False
        self.head = b""
        self.rest = b""
        self.window = 0


class Connection(asyncio.Protocol):
    """`ready` is done when the peer has spoken HTTP/2; `changed` is called when no more calls are taken."""

    def __init__(self, max_response: int, changed: "Callable[[Connection], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._max_response = max_response
        self._changed = changed
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.usable = False
        self._closed = False
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._waiting: deque[Stream] = deque()
        self._out: list[bytes] = []
        self._buffer = b""
        self._block: tuple[int, int, bytearray] | None = None
        self._trailers: dict[bytes, Mapping[str, str]] = {}
        self._next = 1
        self._paused = False
        self._ticking = False
        self._unread = 0
        self._window = self._initial = _WINDOW
        self._frame_size = _FRAME
        self._most = 2**31

    # What the channel asks for

    def begin(self, head: bytes, message: bytes, until: float) -> Stream:
        """Send a call whose header block is `head`, to be answered before the loop's time is `until`. Raises NotSent
        when this connection takes none, Failure when too many wait already."""
        if not self.usable:
            raise NotSent
        stream = Stream(self._loop.create_future(), until)
        size = len(message) + 5
        if (
            self._waiting
            or self._paused
            or size > self._window
            or size > self._initial
            or size > self._frame_size
            or len(head) > self._frame_size
            or len(self._streams) >= self._most
        ):
            self._queue(stream, head, message)
        else:
            self._window -= size
            number = self._number(stream)
            name = number.to_bytes(4)
            self._write(
                b"%b\x01\x04%b%b%b\x00\x01%b\x00%b%b"
                % (len(head).to_bytes(3), name, head, size.to_bytes(3), name, (size - 5).to_bytes(4), message)
            )
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_TICK, self._tick)
        return stream

    def abandon(self, stream: Stream) -> None:
        """Nobody waits for the answer any more."""
        if stream.number and self._streams.pop(stream.number, None) is not None:
            self._reset(stream.number, _CANCEL)
            self._close_when_drained()

    def retire(self) -> None:
        """Take no more calls, and close when those in progress have ended."""
        if self.usable:
            self.usable = False
            self._changed(self)
        self._close_when_drained()

    def close(self) -> None:
        """End all calls, and the connection."""
        if self._transport is not None and not self._closed:
            self._write(_frame(_GOAWAY, 0, 0, bytes(8)))
            self._flush()
            self._transport.close()
        self._lose()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _notice_dead_peers(transport.get_extra_info("socket"))
        window = min(self._max_response + _FRAME, _LARGEST_WINDOW)
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 0, _ENABLE_PUSH, 0, _INITIAL_WINDOW, window)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, _OUR_WINDOW.to_bytes(4))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lose()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        position, end = 0, len(buffer)
        try:
            while end - position >= _FRAME_HEAD:
                size = int.from_bytes(buffer[position : position + 3])
                after = position + _FRAME_HEAD + size
                if size > _FRAME:
                    self._refuse()
                    return
                if after > end:
                    break
                number = int.from_bytes(buffer[position + 5 : position + 9]) & _LARGEST_WINDOW
                self._take(buffer[position + 3], buffer[position + 4], number, buffer[position + _FRAME_HEAD : after])
                position = after
        except (ProtocolError, HpackError, struct.error, IndexError):
            self._refuse()
            return
        self._buffer = buffer[position:]

    # Frames

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise ProtocolError("a header block is interrupted")
        if kind == _DATA:
            self._take_data(flags, number, payload)
        elif kind == _HEADERS:
            self._take_headers(flags, number, payload)
        elif kind == _WINDOW_UPDATE:
            self._take_window(number, payload)
        elif kind == _CONTINUATION:
            self._continue(flags, number, payload)
        elif number == 0:
            self._take_control(kind, flags, payload)
        elif kind == _RST_STREAM:
            stream = self._streams.pop(number, None)
            if stream is not None:
                _fail(stream, reset_failure(int.from_bytes(payload)))
                self._close_when_drained()
        elif kind != _PRIORITY and kind <= _CONTINUATION:
            raise ProtocolError("a frame is out of place")

    def _take_control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SETTINGS:
            self._take_settings(flags, payload)
        elif kind == _GOAWAY:
            self._go_away(int.from_bytes(payload[:4]) & _LARGEST_WINDOW)
        elif kind == _PING:
            if len(payload) != 8:  # noqa: PLR2004 - §6.7
                raise ProtocolError("a ping has eight bytes")
            if not flags & _ACK:
                self._write(_frame(_PING, _ACK, 0, payload))
        elif kind <= _CONTINUATION:
            raise ProtocolError("a frame is out of place")

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        self._unread += len(payload)
        if self._unread > _OUR_WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4)))
            self._unread = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        stream.chunks.append(payload)
        stream.size += len(payload)
        if stream.size > self._max_response + 5:
            del self._streams[number]
            self._reset(number, _CANCEL)
            _fail(stream, Failure(8, "The response is too large."))
        elif flags & _END_STREAM:
            self._end(stream, {})

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & _PRIORITISED:
            payload = payload[5:]
        if flags & _END_HEADERS:
            self._take_block(flags, number, payload)
        else:
            self._block = number, flags, bytearray(payload)

    def _continue(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise ProtocolError("nothing is to be continued")
        block = self._block[2]
        block += payload
        if len(block) > _BLOCK:
            raise ProtocolError("a header block is too large")
        if flags & _END_HEADERS:
            begun, self._block = self._block, None
            self._take_block(begun[1], number, bytes(block))

    def _take_block(self, flags: int, number: int, block: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & _END_STREAM:
            trailers = self._trailers.get(block)
            if trailers is None:
                trailers = trailers_of(decode(block))
                if len(self._trailers) < _REMEMBERED and trailers.get("grpc-status") == "0":
                    self._trailers[block] = trailers
            self._end(stream, trailers)
        elif not stream.began:
            stream.began = True
            if block[0] != 0x88:  # noqa: PLR2004 - `:status 200` in the static table; what follows is of no interest
                failure = http_failure(decode(block))
                if failure is not None:
                    del self._streams[number]
                    self._reset(number, _CANCEL)
                    _fail(stream, failure)

    def _end(self, stream: Stream, trailers: Mapping[str, str]) -> None:
        del self._streams[stream.number]
        if stream.rest:  # answered before all was sent
            stream.rest = b""
            self._reset(stream.number, _NO_ERROR)
        if not stream.answer.done():
            try:
                stream.answer.set_result(unframe(trailers, stream.chunks))
            except Failure as failure:
                stream.answer.set_exception(failure)
        if not self.usable:
            self._close_when_drained()
        elif self._waiting:
            self._pump()

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                if value > _LARGEST_WINDOW:
                    raise ProtocolError("a window is too large")
                for stream in self._waiting:
                    stream.window += value - self._initial
                self._initial = value
            elif name == _FRAME_SIZE:
                self._frame_size = value
            elif name == _MOST_STREAMS:
                self._most = value
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        if not self.ready.done():
            self.usable = True
            self.ready.set_result(None)
        self._pump()

    def _take_window(self, number: int, payload: bytes) -> None:
        more = int.from_bytes(payload) & _LARGEST_WINDOW
        if number == 0:
            self._window += more
            if self._window > _LARGEST_WINDOW:
                raise ProtocolError("the window is too large")
        else:
            stream = self._streams.get(number)
            if stream is not None:
                stream.window += more
        self._pump()

    def _go_away(self, last: int) -> None:
        for number in [number for number in self._streams if number > last]:
            _fail(self._streams.pop(number), NotSent())
        for stream in self._waiting:
            if not stream.number:
                _fail(stream, NotSent())
        self._waiting = deque(stream for stream in self._waiting if stream.number)
        self.retire()

    # Sending

    def _number(self, stream: Stream) -> int:
        number = stream.number = self._next
        self._streams[number] = stream
        self._next = number + 2
        if number > _LAST_STREAM:
            self.retire()
        return number

    def _queue(self, stream: Stream, head: bytes, message: bytes) -> None:
        if len(self._waiting) >= _WAITING:
            raise Failure(14, "Too many calls wait for the service.")
        stream.head = head
        stream.rest = b"\0" + len(message).to_bytes(4) + message
        self._waiting.append(stream)
        self._pump()

    def _pump(self) -> None:
        """Send of what waits as much as the peer and the transport take."""
        left: deque[Stream] = deque()
        while self._waiting:
            stream = self._waiting.popleft()
            if not stream.answer.done() and not self._advance(stream):
                left.append(stream)
        self._waiting = left

    def _advance(self, stream: Stream) -> bool:
        """Whether all of the request is sent."""
        if not stream.number:
            if self._paused or len(self._streams) >= self._most:
                return False
            stream.window = self._initial
            self._write(self._head_frames(self._number(stream), stream.head))
        while stream.rest:
            size = min(len(stream.rest), self._window, stream.window, self._frame_size)
            if size <= 0 or self._paused:
                return False
            part, stream.rest = stream.rest[:size], stream.rest[size:]
            self._window -= size
            stream.window -= size
            self._write(_frame(_DATA, 0 if stream.rest else _END_STREAM, stream.number, part))
        return True

    def _head_frames(self, number: int, head: bytes) -> bytes:
        parts = [head[at : at + self._frame_size] for at in range(0, len(head), self._frame_size)]
        frames = [
            _frame(_CONTINUATION if index else _HEADERS, _END_HEADERS if index == len(parts) - 1 else 0, number, part)
            for index, part in enumerate(parts)
        ]
        return b"".join(frames)

    def _reset(self, number: int, code: int) -> None:
        self._write(_frame(_RST_STREAM, 0, number, code.to_bytes(4)))

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._closed and self._transport is not None:
            self._transport.write(b"".join(out) if len(out) > 1 else out[0])

    # Time, and the end

    def _tick(self) -> None:
        now = self._loop.time()
        late = [stream for stream in self._streams.values() if stream.until <= now]
        late += [stream for stream in self._waiting if not stream.number and stream.until <= now]
        for stream in late:
            _fail(stream, Failure(4, "The deadline passed before the answer came."))
            self.abandon(stream)
        if late:
            self._pump()
        self._ticking = bool(self._streams or self._waiting)
        if self._ticking:
            self._loop.call_later(_TICK, self._tick)

    def _close_when_drained(self) -> None:
        if not self.usable and self.ready.done() and not self._streams and not self._waiting:
            self.close()

    def _refuse(self) -> None:
        if self._transport is not None and not self._closed:
            self._write(_frame(_GOAWAY, 0, 0, struct.pack(">II", 0, _PROTOCOL_ERROR)))
            self._flush()
            self._transport.close()
        self._lose()

    def _lose(self) -> None:
        if self._closed:
            return
        self._closed = True
        usable, self.usable = self.usable, False
        if not self.ready.done():
            self.ready.set_result(None)
        streams, self._streams = self._streams, {}
        waiting, self._waiting = self._waiting, deque()
        for stream in (*streams.values(), *waiting):
            _fail(stream, NotSent() if not stream.number else Failure(14, "The connection was lost."))
        if usable:
            self._changed(self)


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + payload


def _fail(stream: Stream, failure: Exception) -> None:
    if not stream.answer.done():
        stream.answer.set_exception(failure)


def _notice_dead_peers(sock: Any) -> None:
    """Let the kernel end a connection whose peer is gone without a word."""
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED)
