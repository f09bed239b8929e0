"""Answers the requests for event streams: who may not or cannot is told so, everybody else goes to the hub."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from bas.events.v2.events_service_pb2 import (
    END_REASON_DRAINING,
    END_REASON_OVERLOADED,
    SLOW_CONSUMER_POLICY_CONFLATE,
    SubscribeEventsRequest,
)
from chassis.api.cursors import invalid, parse
from chassis.errors import ApiError, Code, internal, permission_denied
from gateway.problems import Headers
from gateway.protocol import take_over
from gateway.sse.authority import SCOPE, session_of
from gateway.sse.connection import Connection
from gateway.sse.frames import COMMENT, end_text, text
from gateway.sse.hub import Hub, canonical
from gateway.sse.joining import Start
from gateway.sse.measures import StreamMeasures
from gateway.sse.port import Opening
from gateway.sse.stream import Stream

_HEAD: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_FINAL: Final = (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED)
"""What the client asked for and is not to be had. All else is no fault of its, and a browser that is told by a status never
comes back."""


@dataclass(frozen=True, slots=True)
class EventStreams:
    """The `StreamHandler` of SubscribeEvents."""

    hub: Hub
    measures: StreamMeasures

    async def serve(self, opening: Opening) -> None:
        """Returns when the connection is in the hub's hands and has caught up, or has ended."""
        caller = opening.credential.caller
        if not caller.may(SCOPE):
            raise permission_denied(SCOPE)
        asked = _asked(opening.message)
        if asked.cursor and parse(asked.cursor) is None:
            raise invalid("cursor")
        if self.hub.full(caller.tenant):
            self._refuse(opening, asked.cursor)
            return
        try:
            stream, start = await self.hub.open(caller.tenant, canonical(asked), asked.cursor)
        except TimeoutError:
            self._refuse(opening, asked.cursor)
            return
        except ApiError as error:
            if error.code in _FINAL:
                raise
            self._refuse(opening, asked.cursor)
            return
        if self.hub.full(caller.tenant):  # by now
            self.hub.let_go(stream)
            self._refuse(opening, asked.cursor)
            return
        await self._begin(opening, stream, start, conflates=asked.slow_consumer_policy == SLOW_CONSUMER_POLICY_CONFLATE)

    async def drain(self, seconds: float) -> None:
        """As `StreamHandler` has it."""
        await self.hub.drain(seconds)

    async def _begin(self, opening: Opening, stream: Stream, start: Start, *, conflates: bool) -> None:
        taken = take_over(opening.send, [*_HEAD, *opening.headers], self._first_words(start))
        if taken is None:
            self.hub.let_go(stream)
            return
        session = session_of(opening.credential)
        connection = Connection(
            taken,
            slot=self.hub.next_slot(),
            expires=opening.credential.caller.expires_at,
            conflates=conflates,
            session=session,
            renew=opening.renew if opening.credential.session_token else None,
        )
        self.hub.enter(connection, stream)
        taken.when_lost(lambda: self.hub.lost(connection))
        await self.hub.serve(connection, stream, start)

    def _first_words(self, start: Start) -> bytes:
        """When to come back, and something that shows at once that this is a stream; the position to come back to, for
        those that leave before the first event."""
        return COMMENT[:-1] + text(retry=self.hub.retry(), id=start.cursor)

    def _refuse(self, opening: Opening, cursor: str) -> None:
        self.measures.refused.inc()
        reason = END_REASON_DRAINING if self.hub.draining else END_REASON_OVERLOADED
        words = end_text(reason, cursor, self.hub.retry(overloaded=reason == END_REASON_OVERLOADED))
        taken = take_over(opening.send, [*_HEAD, *opening.headers], words)
        if taken is not None:
            taken.close()


def _asked(message: bytes) -> SubscribeEventsRequest:
    try:
        return SubscribeEventsRequest.FromString(message)
    except DecodeError:
        raise internal() from None
