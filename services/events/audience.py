"""The subscribers of one tenant, and how far the follower has come in the tenant's log."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, Protocol

from chassis.api.cursors import Position
from services.events.authorisation import ended_session
from services.events.filters import EventFilter
from services.events.frames import Frame
from services.events.port import EventLog
from services.events.ring import Ring
from services.events.wheel import Wheel

LINGER: Final = 30.0
"""Seconds for which a tenant's newest events are still collected when nobody listens: readers that lost their connection
come back within that."""


class Member(Protocol):
    """A subscriber, as its audience sees it."""

    @property
    def filter(self) -> EventFilter: ...
    @property
    def session_id(self) -> str: ...
    def offer(self, frames: Sequence[Frame], before: Position | None) -> None:
        """Frames that match, which follow `before`; called only while it listens."""
        ...

    def expect(self, first: Position) -> None:
        """The first that the follower brings since it began; called only while it listens. It looks again if that is not
        what comes next."""
        ...

    def look_again(self) -> None:
        """What it listens to has begun, has stopped, or does not go on where it was: it is to find its place anew."""
        ...

    def revoke(self) -> None:
        """The session that it came with has ended."""
        ...


class Audience:
    """Everybody who subscribed to one tenant's log in this process. Those who listen are given what the follower brings;
    the others are on their way, and `join` when they have come to where the follower is."""

    def __init__(
        self,
        tenant: str,
        log: EventLog,
        ring: Ring,
        wheel: Wheel,
        clock: Callable[[], float],
        on_empty: Callable[[], None],
        *,
        followed: bool,
    ) -> None:
        self.tenant = tenant
        self.armed: int | None = None
        self.head: Position | None = None
        """The position of the newest event that the follower brought; None when it brought none since it began."""
        self.generation = 0
        """Changes when what comes is no longer known to continue what was in the log before: who looked at the log in an
        earlier generation looks again."""
        self.followed = followed
        """Whether whatever is appended now comes here."""
        self._log = log
        self._ring = ring
        self._wheel = wheel
        self._clock = clock
        self._on_empty = on_empty
        self._members: set[Member] = set()
        self._listening: dict[EventFilter, dict[Member, None]] = {}
        self._sessions: dict[str, set[Member]] = {}
        self._left_at = 0.0
        self._written: tuple[Position, str] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Member) -> None:
        self._members.add(member)
        if member.session_id:
            self._sessions.setdefault(member.session_id, set()).add(member)

    def leave(self, member: Member) -> None:
        self.stop_listening(member)
        self._members.discard(member)
        with_session = self._sessions.get(member.session_id)
        if with_session is not None:
            with_session.discard(member)
            if not with_session:
                del self._sessions[member.session_id]
        if not self._members:
            self._left_at = self._clock()
            self._wheel.arm(self, self._left_at + LINGER)

    def listen(self, member: Member) -> None:
        """From the next event on, it is offered what matches. Only for who has everything up to `head`."""
        self._listening.setdefault(member.filter, {})[member] = None

    def stop_listening(self, member: Member) -> None:
        group = self._listening.get(member.filter)
        if group is not None:
            group.pop(member, None)
            if not group:
                del self._listening[member.filter]

    def after(self, position: Position) -> Iterator[Frame] | None:
        """What the follower brought after a position; None when that is not known from memory."""
        if self.head == position:
            return iter(())
        return self._ring.after(self.tenant, position)

    def oldest(self) -> Position | None:
        """The position of the oldest event in memory."""
        return self._ring.oldest(self.tenant)

    def cursor(self, position: Position) -> str:
        """The cursor of a position; many ask for the same."""
        if self._written is None or self._written[0] != position:
            self._written = position, self._log.cursor(self.tenant, position)
        return self._written[1]

    def take(self, frames: Sequence[Frame]) -> None:
        """What the follower brought, in order. A hole, which it promises not to leave, costs those who listen a look at
        the log, and no event."""
        fresh: list[Frame] = []
        before = self.head
        for frame in frames:
            if self.head is not None:
                ahead = frame.position.sequence - self.head.sequence
                if ahead <= 0:
                    continue
                if ahead > 1:
                    self._deliver(fresh, before)
                    self.lose_place()
                    fresh, before = [], None
            if self.head is None:
                for member in tuple(chain.from_iterable(self._listening.values())):
                    member.expect(frame.position)
            self._ring.append(frame)
            self.head = frame.position
            fresh.append(frame)
        self._deliver(fresh, before)

    def lose_place(self) -> None:
        """What comes next does not follow what came last: all look again."""
        self.look_again()  # from where they are, which `head` tells
        self.head = None
        self.generation += 1
        self._ring.forget(self.tenant)

    def look_again(self) -> None:
        for member in tuple(self._members):
            member.look_again()

    def on_time(self, now: float) -> float | None:
        if self._members:
            return None
        if now < self._left_at + LINGER:
            return self._left_at + LINGER
        self._ring.forget(self.tenant)
        self._on_empty()
        return None

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def _deliver(self, frames: Sequence[Frame], before: Position | None) -> None:
        if not frames:
            return
        for wanted, group in tuple(self._listening.items()):
            matching = [frame for frame in frames if wanted.matches(frame.entry)]
            if matching:
                for member in tuple(group):
                    member.offer(matching, before)
        if self._sessions:
            for frame in frames:
                ended = ended_session(frame.entry)
                if ended is not None:
                    for member in tuple(self._sessions.get(ended, ())):
                        member.revoke()
