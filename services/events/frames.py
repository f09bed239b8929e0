"""The messages of a stream as the bytes that go out: an event's are made once, and shared by all who get it."""

from dataclasses import dataclass
from datetime import datetime

from bas.events.v2.events_pb2 import Gap, GapReason
from bas.events.v2.events_service_pb2 import EndReason, EndWarning, Heartbeat, StreamEnd, SubscribeEventsResponse
from chassis.api.cursors import Position
from services.events import records
from services.events.port import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An entry of the log, and the message that brings it to a subscriber. `taken` is when it came from the log, on the
    monotonic clock."""

    entry: Entry
    data: bytes
    taken: float

    @property
    def position(self) -> Position:
        return self.entry.position


def framed(entry: Entry, taken: float) -> Frame:
    """The frame of an entry, whose LoggedEvent is taken as it is."""
    return Frame(entry, records.framed(entry.logged), taken)


def heartbeat(cursor: str, now: datetime) -> bytes:
    """A sign of life; the cursor is empty while the log cannot be asked where it ends."""
    message = SubscribeEventsResponse(heartbeat=Heartbeat(cursor=cursor))
    message.heartbeat.time.FromDatetime(now)
    return message.SerializeToString()


def gap(reason: GapReason.ValueType, *, first_cursor: str, cursor: str, missing_count: int) -> bytes:
    told = Gap(reason=reason, first_cursor=first_cursor, cursor=cursor, missing_count=missing_count)
    return SubscribeEventsResponse(gap=told).SerializeToString()


def warning(reason: EndReason.ValueType, end_time: datetime) -> bytes:
    message = SubscribeEventsResponse(warning=EndWarning(reason=reason))
    message.warning.end_time.FromDatetime(end_time)
    return message.SerializeToString()


def end(reason: EndReason.ValueType, cursor: str, retry_after: float) -> bytes:
    """The last message; `retry_after` is in seconds."""
    message = SubscribeEventsResponse(end=StreamEnd(reason=reason, cursor=cursor))
    message.end.retry_after.FromMilliseconds(round(retry_after * 1000))
    return message.SerializeToString()
