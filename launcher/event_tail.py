"""Following a tenant's events over gRPC for as long as anybody reads them: resumed after every cut, losses told."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from google.protobuf.descriptor import EnumDescriptor

from bas.events.v2.events_pb2 import Gap, GapReason, LoggedEvent
from bas.events.v2.events_service_pb2 import (
    END_REASON_SESSION_REVOKED,
    EndReason,
    StreamEnd,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.interceptors.client import Metadata
from chassis.interceptors.stream import StreamCall

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0
_FINAL: Final = (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED, Code.UNIMPLEMENTED)
"""What another attempt does not change."""


class Tail:
    """Iterate over it once. `cursor` is from where to go on; whoever iterates sets it to that of an event when it has done
    with the event. `metadata` gives that of a call, new for each; `say` gets what a person should know; `random` gives
    [0, 1)."""

    def __init__(
        self,
        asked: SubscribeEventsRequest,
        call: StreamCall,
        metadata: Callable[[], Metadata],
        *,
        clock: Clock,
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.cursor = asked.cursor
        self._asked = asked
        self._call = call
        self._metadata = metadata
        self._clock = clock
        self._random = random
        self._say = say
        self._connected = False
        self._lost = False

    async def __aiter__(self) -> AsyncIterator[LoggedEvent]:
        """Raises ApiError for what another attempt does not change, and when the very first one fails."""
        wait = 0.0
        while True:
            least = 0.0
            try:
                async for message in self._messages():
                    wait = 0.0
                    kind = message.WhichOneof("message")
                    if kind == "event":
                        yield message.event
                    elif kind == "heartbeat":
                        self.cursor = message.heartbeat.cursor or self.cursor
                    elif kind == "gap":
                        self._say(_missing(message.gap))
                        self.cursor = message.gap.cursor or self.cursor
                    elif kind == "end":
                        least = self._ended(message.end)
            except ApiError as error:
                if error.code in _FINAL or not self._connected:
                    raise
                self._interrupted(error.message)
                least = error.retry_after or 0.0
            wait = min(max(2 * wait, _FIRST_WAIT), _LONGEST_WAIT)
            await self._clock.sleep(max(least, wait * (0.5 + 0.5 * self._random())))

    async def _messages(self) -> AsyncIterator[SubscribeEventsResponse]:
        request = SubscribeEventsRequest()
        request.CopyFrom(self._asked)
        request.cursor = self.cursor
        async with self._call(request.SerializeToString(), self._metadata()) as stream:
            async for data in stream:
                if self._lost:
                    self._say("connected again")
                self._connected, self._lost = True, False
                yield SubscribeEventsResponse.FromString(data)

    def _interrupted(self, why: str) -> None:
        if not self._lost:  # said once, however long it lasts
            self._say(f"connection lost ({why.rstrip('.')}); trying again")
        self._lost = True

    def _ended(self, end: StreamEnd) -> float:
        """How many seconds to wait."""
        self.cursor = end.cursor or self.cursor
        if end.reason == END_REASON_SESSION_REVOKED:
            raise ApiError(Code.UNAUTHENTICATED, "SESSION_REVOKED", "The session was revoked.")
        self._interrupted(_name(EndReason.DESCRIPTOR, end.reason, "END_REASON_"))
        return end.retry_after.seconds + end.retry_after.nanos / 1e9


def _missing(gap: Gap) -> str:
    count = f"{gap.missing_count} events are" if gap.missing_count else "events may be"
    reason = _name(GapReason.DESCRIPTOR, gap.reason, "GAP_REASON_")
    return f"gap: {count} missing here ({reason}); the oldest to be had are after --cursor {gap.first_cursor}"


def _name(enum: EnumDescriptor, value: int, prefix: str) -> str:
    known = enum.values_by_number.get(value)
    return str(value) if known is None else known.name.removeprefix(prefix).lower().replace("_", " ")
