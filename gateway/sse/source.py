"""One stream followed upstream, for as long as it is wanted: opened again from where it was, whatever ends it."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from bas.events.v2.events_service_pb2 import (
    END_REASON_OVERLOADED,
    StreamEnd,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.interceptors.stream import Stream as Messages
from chassis.interceptors.stream import StreamCall
from gateway.sse.stream import Stream
from gateway.upstream import Metadata

_LOG: Final = logging.getLogger("bas.gateway.sse")
_FIRST: Final = 5.0
"""Seconds for the first message."""
_LEAST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 2.0
"""Seconds between two attempts."""
_FINAL: Final = (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED)
"""What another attempt does not change."""


class Pass(Protocol):
    def __call__(self, tenant: str) -> Metadata:
        """The metadata of a call in a tenant's name, good for some minutes at least."""
        ...


class Source:
    """Feeds `stream`. `random` gives [0, 1)."""

    def __init__(
        self, stream: Stream, call: StreamCall, credential: Pass, *, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._stream = stream
        self._call = call
        self._credential = credential
        self._clock = clock
        self._random = random
        self._messages: Messages | None = None
        self._begun = False
        self.failed: ApiError | None = None

    def reopen(self) -> None:
        """Go on from here with a new credential."""
        if self._messages is not None:
            self._messages.cancel()

    async def follow(self) -> None:
        """Runs until it is cancelled, or until what is asked for turns out to be nothing that can be followed, which
        `failed` then says."""
        wait = 0.0
        while True:
            self._begun = False
            try:
                end = await self._once()
            except ApiError as error:
                self._stream.fail(error)
                if error.code in _FINAL and self._stream.position is None:
                    self.failed = error
                    return
                if error.code is Code.INVALID_ARGUMENT:
                    self._stream.forget_cursor()
                least = error.retry_after or 0.0
            else:
                least = self._after(end)
            wait = _LEAST_WAIT if self._begun else min(max(2 * wait, _LEAST_WAIT), _LONGEST_WAIT)
            await self._clock.sleep(max(least, wait) * (0.5 + self._random()))

    async def _once(self) -> StreamEnd | None:
        request = SubscribeEventsRequest.FromString(self._stream.request)
        request.cursor = self._stream.cursor
        end: StreamEnd | None = None
        async with self._call(request.SerializeToString(), self._credential(self._stream.tenant), _FIRST) as messages:
            self._messages = messages
            try:
                async for data in messages:
                    try:
                        message = SubscribeEventsResponse.FromString(data)
                    except DecodeError:
                        _LOG.warning("an event stream of %s sent what is no message", self._stream.tenant)
                        return None
                    self._begun = True
                    end = self._stream.take(message) or end
            finally:
                self._messages = None
        return end

    def _after(self, end: StreamEnd | None) -> float:
        """How long to wait after a stream that ended in order."""
        if end is None:
            return 0.0
        if end.reason == END_REASON_OVERLOADED:
            message = "The events service takes no more streams."
            error = ApiError(Code.RESOURCE_EXHAUSTED, "STREAMS_EXHAUSTED", message, retry_after=_LONGEST_WAIT)
            self._stream.fail(error)
        return end.retry_after.seconds + end.retry_after.nanos / 1e9
