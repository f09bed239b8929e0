"""One stream: from a position in the log to the present, and on with what happens, until somebody ends it.

It is in one of two states. On its way, it takes what comes after its position from memory, else from the log, a page at a
time and no faster than its reader reads. Once nothing is left between its position and what the follower brings, it
listens: the audience puts what matches into its backlog. Both steps happen without an await between look and leap, which
is what leaves no gap and no duplicate.
"""

import asyncio
from asyncio import Task
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from bas.events.v2.events_pb2 import GAP_REASON_CONFLATED, GAP_REASON_EPOCH_CHANGED, GAP_REASON_TOO_OLD, GapReason
from bas.events.v2.events_service_pb2 import (
    END_REASON_CREDENTIAL_EXPIRED,
    END_REASON_SESSION_REVOKED,
    END_REASON_SLOW_CONSUMER,
    EndReason,
)
from chassis.api.cursors import Position
from chassis.context import Caller
from chassis.errors import ApiError, Code
from services.events import frames
from services.events.audience import Audience
from services.events.authorisation import ended_session, warn_before
from services.events.backlog import Backlog, Conflated
from services.events.filters import EventFilter
from services.events.frames import Frame, framed
from services.events.port import Entry, EventLog, Extent
from services.events.streams import Streams

_PAGE: Final = 64
_PAGE_BYTES: Final = 256 * 1024
"""Events read from the log at once: what a reader that has stopped holds on to."""
_PATIENCE: Final = 1.0
"""Seconds in which a reader with a full backlog must have taken something, or it is too slow: a burst is no fault of the
reader's, and neither is a process with a great many of them."""
_LONGEST: Final = 5.0
"""Seconds in which it must have taken all of it."""
_CUT: Final = 5.0
"""Seconds in which a stream that was told to end must have ended, or it is cut off: its reader does not read."""
_CUT_REVOKED: Final = 0.5
_LOOK_TWICE: Final = 0.25
"""Seconds until a second look at a reader that is too slow: if this process had no time, the first finds all of them so."""
_AGAIN: Final = 1.0
_SOON: Final = 0.2
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED})
_RETURN: Final = 1.0
"""Longest wait, in seconds, of a reader that was too slow or whose credential has expired; drawn by chance."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber asks for. `position` is None for: from now on."""

    filter: EventFilter
    position: Position | None = None
    conflate: bool = False


class Subscription:
    """One subscriber. `messages` is called once, and is its whole life."""

    def __init__(self, wish: Wish, caller: Caller, audience: Audience, log: EventLog, streams: Streams) -> None:
        self.filter = wish.filter
        self.session_id = caller.session_id
        self.armed: int | None = None
        self._audience = audience
        self._log = log
        self._streams = streams
        self._backlog = Backlog(streams.queue_events, streams.queue_bytes, conflate=wish.conflate)
        self._wake = asyncio.Event()
        self._task: Task[Any] | None = None
        # Up to `known`, everything that matches was put into the backlog; up to `taken`, it was handed out.
        self._known = wish.position
        self._taken = wish.position
        self._asked = wish.position is not None
        self._listens = False
        self._followed = False
        self._goal: Position | None = None
        self._goal_of = -1
        self._told: deque[bytes] = deque()
        self._end: bytes | None = None
        self._beat = False
        self._begun = False
        now = streams.clock.monotonic()
        left = caller.expires_at - streams.clock.now().timestamp()
        self._expires = now + left
        self._warns: float | None = self._expires - warn_before(left)
        self._spoke = now
        self._retry = now
        self._full_since: float | None = None
        self._moved = False
        self._cut: float | None = None
        self._is_cut = False
        self._looked = False

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """The serialized SubscribeEventsResponses. Raises EVENTS_UNAVAILABLE, before the first, when the cursor asks for
        what only the log has, and the log is away; STREAM_NOT_READ when the reader does not take the last one."""
        clock = self._streams.clock.monotonic
        self._task = asyncio.current_task()
        self._audience.enter(self)
        self._streams.wheel.arm(self, self._due())
        try:
            while True:
                message = self._next()
                if message is not None:
                    self._begun = True
                    yield message
                    self._spoke = clock()
                    if message is self._end:
                        return
                elif self._listens or clock() < self._retry:
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    await self._go_on()
        finally:
            task, self._task = self._task, None
            self._streams.wheel.disarm(self)
            self._audience.leave(self)
            if self._is_cut and task is not None:
                # The cancellation was ours: it ends the call with a status, which waits until its reader reads.
                task.uncancel()
                raise _cut_off()

    # What the audience calls.

    def offer(self, frames: Sequence[Frame], before: Position | None) -> None:
        known = self._known
        if known is None or not self._listens:
            return
        if not self._backlog:
            self._taken = _later(known, before)
        for frame in frames:
            if frame.position.sequence <= known.sequence:
                continue
            if not self._backlog.add(frame):
                self._fall_behind()
                break
            self._known = frame.position
        self._wake.set()

    def expect(self, first: Position) -> None:
        if self._known is not None and first.sequence > self._known.sequence + 1:
            self.look_again()

    def look_again(self) -> None:
        if self._listens:
            self._known = self._up_to()
            self._stop_listening()
        self._goal = None
        self._retry = self._streams.clock.monotonic()
        self._wake.set()

    def revoke(self) -> None:
        if self._end is None:
            self._warn(END_REASON_SESSION_REVOKED, 0.0)
            self.end(END_REASON_SESSION_REVOKED, 0.0, _CUT_REVOKED)

    def end(self, reason: EndReason.ValueType, retry_after: float, cut: float | None = None) -> None:
        """Let it end with that as its last message; what waits is dropped, and comes after the cursor it tells."""
        if self._end is not None:
            return
        position = self._up_to() if not self._backlog else self._taken
        self._end = frames.end(reason, self._cursor(position), retry_after)
        self._stop_listening()
        self._backlog.clear()
        self._cut = self._streams.clock.monotonic() + (_CUT if cut is None else cut)
        self._looked = False
        self._streams.wheel.arm(self, self._cut)
        self._wake.set()

    def on_time(self, now: float) -> float | None:
        if self._cut is not None and now >= self._cut:
            if not self._looked:
                self._looked = True
                return now + _LOOK_TWICE
            if self._task is not None and not self._is_cut:
                self._is_cut = True
                self._task.cancel()
            return None
        if self._end is None:
            self._judge_credential(now)
            if self._full_since is not None and now >= self._full_since + self._patience():
                if not self._looked:
                    self._looked = True
                    return now + _LOOK_TWICE
                self._streams.metrics.slow()
                self.end(END_REASON_SLOW_CONSUMER, self._streams.random() * _RETURN)
        if now >= self._spoke + self._streams.heartbeat and not self._beat:
            self._beat = True
            self._wake.set()
        if not self._listens and now >= self._retry:
            self._wake.set()
        return self._due()

    def _due(self) -> float:
        if self._cut is not None:
            return self._cut
        now = self._streams.clock.monotonic()
        due = [max(self._spoke, now if self._beat else 0.0) + self._streams.heartbeat, self._expires]
        if self._warns is not None:
            due.append(self._warns)
        if self._full_since is not None:
            due.append(self._full_since + self._patience())
        if not self._listens and self._retry > now:
            due.append(self._retry)
        return min(due)

    def _judge_credential(self, now: float) -> None:
        if now >= self._expires:
            self.end(END_REASON_CREDENTIAL_EXPIRED, self._streams.random() * _RETURN)
        elif self._warns is not None and now >= self._warns:
            self._warns = None
            self._warn(END_REASON_CREDENTIAL_EXPIRED, self._expires - now)

    def _warn(self, reason: EndReason.ValueType, within: float) -> None:
        self._told.append(frames.warning(reason, self._streams.clock.now() + timedelta(seconds=within)))
        self._wake.set()

    # What goes out.

    def _next(self) -> bytes | None:
        if self._told:
            return self._told.popleft()
        if self._end is not None:
            return self._end
        taken = self._backlog.take()
        if isinstance(taken, Frame):
            self._taken = taken.position
            self._moved = True
            self._streams.metrics.deliver(taken)
            return taken.data
        if taken is not None:
            return self._conflated(taken)
        if self._beat:
            self._beat = False
            return frames.heartbeat(self._cursor(self._up_to()), self._streams.clock.now())
        return None

    def _conflated(self, gap: Conflated) -> bytes:
        first = self._taken or gap.before
        self._taken = gap.before
        return self._gap(GAP_REASON_CONFLATED, first, gap.before, gap.missing)

    def _gap(self, reason: GapReason.ValueType, first: Position, to: Position, missing: int) -> bytes:
        self._streams.metrics.gap(reason)
        cursor = self._audience.cursor
        return frames.gap(reason, first_cursor=cursor(first), cursor=cursor(to), missing_count=missing)

    def _up_to(self) -> Position | None:
        """With an empty backlog: everything up to there was handed out, or was not asked for."""
        if self._listens and self._known is not None:
            return _later(self._known, self._audience.head)
        return self._known

    def _cursor(self, position: Position | None) -> str:
        return "" if position is None else self._audience.cursor(position)

    # On its way.

    def _fall_behind(self) -> None:
        """The backlog is full. Further events stay where they are; the reader has a while to take what waits."""
        self._stop_listening()
        self._full_since, self._moved, self._looked = self._streams.clock.monotonic(), False, False
        self._streams.wheel.arm(self, self._full_since + _PATIENCE)

    def _patience(self) -> float:
        return _LONGEST if self._moved else _PATIENCE

    def _stop_listening(self) -> None:
        self._audience.stop_listening(self)
        self._listens = False

    def _listen(self) -> None:
        self._listens = self._followed = True
        self._audience.listen(self)

    async def _go_on(self) -> None:
        """One step towards the present, with an empty backlog."""
        self._full_since = None
        self._taken = self._known
        if not self._from_memory():
            try:
                async with self._streams.reads:
                    await self._from_log()
            except ApiError as failure:
                self._log_away(failure)
        if not (self._begun or self._backlog or self._told):
            self._beat = True

    def _from_memory(self) -> bool:
        """Whether memory had what comes next: then all of it was taken, and this listens; or what there was room for."""
        following = None if self._known is None else self._audience.after(self._known)
        if following is None:
            return False
        for frame in following:
            if self.filter.matches(frame.entry):
                if not self._backlog.has_room(frame):
                    return True
                self._backlog.add(frame)
            self._known = frame.position
        self._listen()
        return True

    async def _from_log(self) -> None:
        if self._goal is None:
            goal_of = self._audience.generation if self._audience.followed else -1
            extent = await self._log.extent(self._audience.tenant)
            self._place(extent)
            self._goal, self._goal_of = extent.last, goal_of
        known, goal = self._known, self._goal
        if known is None or known.sequence >= goal.sequence:
            self._arrive()
            return
        page = await self._log.read(self._audience.tenant, known, limit=_PAGE, max_bytes=_PAGE_BYTES)
        if page:
            self._take(page, known)
        else:  # trimmed meanwhile, or another log by now
            self._goal = None
            self._wait(_SOON)

    def _place(self, extent: Extent) -> None:
        if self._known is None:
            self._known = self._taken = extent.last
            return
        reason = extent.why_not(self._known)
        if not reason:
            self._known = self._taken = Position(extent.last.epoch, self._known.sequence)
            return
        to = extent.last
        if reason == GAP_REASON_EPOCH_CHANGED and self._followed:
            # What the follower brought since is of this log: nobody who was there need miss that.
            oldest = self._audience.oldest()
            if oldest is not None and oldest.epoch == to.epoch and oldest.sequence <= to.sequence:
                to = Position(to.epoch, oldest.sequence - 1)
        missing = to.sequence - self._known.sequence if reason == GAP_REASON_TOO_OLD and self.filter.everything else 0
        self._known = self._taken = to
        self._told.append(self._gap(reason, extent.first, to, missing))

    def _take(self, page: Sequence[Entry], known: Position) -> None:
        first = page[0].position
        if first.sequence != known.sequence + 1:  # trimmed between the look at the extent and the read
            before = Position(first.epoch, first.sequence - 1)
            missing = before.sequence - known.sequence if self.filter.everything else 0
            self._told.append(self._gap(GAP_REASON_TOO_OLD, before, before, missing))
            self._taken = before
        now = self._streams.clock.monotonic()
        for entry in page:
            if self.session_id and ended_session(entry) == self.session_id:
                self.revoke()
                return
            if self.filter.matches(entry):
                frame = framed(entry, now)
                if not self._backlog.has_room(frame):
                    return
                self._backlog.add(frame)
            self._known = entry.position

    def _arrive(self) -> None:
        """All that there was when the log was looked at is here. If it was followed then, what is missing is on its way
        or in memory."""
        known, head = self._known, self._audience.head
        goal_of, self._goal = self._goal_of, None
        if not self._audience.followed:
            self._wait(_AGAIN)
        elif goal_of == self._audience.generation and known is not None:
            if head is None or head.sequence <= known.sequence:
                self._listen()
            elif not self._from_memory():
                self._wait(_SOON)

    def _log_away(self, failure: ApiError) -> None:
        if failure.code not in _AWAY or (self._asked and not self._begun):
            raise failure
        self._goal = None
        if self._known is None and self._audience.followed:
            self._known = self._taken = self._audience.head
        self._wait((failure.retry_after or _AGAIN) * (0.5 + self._streams.random()))

    def _wait(self, seconds: float) -> None:
        self._retry = self._streams.clock.monotonic() + seconds
        self._streams.wheel.arm(self, self._retry)


def _cut_off() -> ApiError:
    return ApiError(
        Code.ABORTED, "STREAM_NOT_READ", "The stream had ended, and its end was not read in time.", retry_after=_RETURN
    )


def _later(one: Position, other: Position | None) -> Position:
    return one if other is None or other.sequence <= one.sequence else other
