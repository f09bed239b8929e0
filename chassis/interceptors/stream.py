"""The client chain of calls that are answered by a stream: metrics → bound of the first message → call, over grpc.aio.

A stream has no deadline but that of the call in progress, if there is one: what is bounded is the wait for its first
message. One that goes silent later ends by the channel's keep-alive when its peer is gone. Streams are few and long, so
that they are worth no transport of our own.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import grpc

from chassis.clock import Clock
from chassis.errors import ApiError, Code, deadline_exceeded
from chassis.interceptors.client import Metadata, named
from chassis.interceptors.metrics import MethodMetrics
from chassis.interceptors.status import error_of
from chassis.resilience.deadline import remaining
from chassis.telemetry.metrics import Metrics

FIRST: Final = 10.0
"""Seconds for connecting and for the first message, unless the caller says otherwise."""


class Stream(Protocol):
    """The messages of one call, in order, each given once. Where nobody reads, nothing is fetched but what the
    transport's window holds. Leaving the `async with` block, like `cancel`, ends the work at the other side."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *problem: object) -> None: ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes:
        """The next message. Raises ApiError for an end that is none, DEADLINE_EXCEEDED for a first message that does not
        come; StopAsyncIteration at the end, and after an error or `cancel`. Cancelling this cancels the call."""
        ...

    def cancel(self) -> None:
        """End it now; harmless when it has ended."""
        ...


class StreamCall(Protocol):
    """One RPC of another process that answers with a stream."""

    def __call__(self, request: bytes, metadata: Metadata = (), first: float = FIRST) -> Stream:
        """Begin a call; `first` is the longest wait for the first message, in seconds. Whoever calls ends the stream. To
        be called in a running loop."""
        ...


def stream(channel: Callable[[], grpc.aio.Channel], path: str, *, metrics: Metrics, clock: Clock) -> StreamCall:
    """The chain of one method, resolved once; `channel` gives the channel when the first call is made."""
    counted = MethodMetrics(metrics, "client", path, "server_stream")
    made: list[Any] = []

    def call(request: bytes, metadata: Metadata = (), first: float = FIRST) -> Stream:
        if not made:
            made.append(channel().unary_stream(path))
        left = remaining(clock)
        counted.started()
        return _Stream(made[0](request, metadata=named(metadata), timeout=left), first, counted, clock.monotonic)

    return call


class _Stream:
    __slots__ = ("_begun", "_call", "_clock", "_counted", "_ended", "_first")

    def __init__(self, call: Any, first: float, counted: MethodMetrics, clock: Callable[[], float]) -> None:
        self._call = call
        self._first: float | None = first
        self._counted = counted
        self._clock = clock
        self._begun = clock()
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            message: Any = await (self._call.read() if self._first is None else self._opening(self._first))
        except grpc.aio.AioRpcError as failure:
            raise self._failed(error_of(failure)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self.cancel()
                raise
            # It was the call that was cancelled, and not who reads it.
            if self._ended:
                raise StopAsyncIteration from None
            raise self._failed(_closed()) from None
        if message is grpc.aio.EOF:
            self._end("OK")
            raise StopAsyncIteration
        return message  # type: ignore[no-any-return]

    def cancel(self) -> None:
        self._call.cancel()
        self._end("CANCELLED")

    async def _opening(self, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                message = await self._call.read()
        except TimeoutError:
            raise self._failed(deadline_exceeded("The stream did not begin in time.")) from None
        self._first = None
        return message

    def _failed(self, error: ApiError) -> ApiError:
        self._call.cancel()
        self._end(error.code.name)
        return error

    def _end(self, code: str) -> None:
        if not self._ended:
            self._ended = True
            self._counted.observe(self._clock() - self._begun)
            self._counted.handled(code)


def _closed() -> ApiError:
    return ApiError(Code.UNAVAILABLE, "STOPPING", "The connection to the service was closed.", retry_after=1.0)
