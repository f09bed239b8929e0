"""What the fan-out asks of the log: append, look, read, follow. `store.py` keeps these promises on Redis."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bas.events.v2.events_pb2 import CloudEvent, GapReason
from chassis.api.cursors import Position


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a tenant's log. `logged` is the serialized LoggedEvent, cursor and all, made once: it goes to the wire
    as it is."""

    tenant: str
    position: Position
    cursor: str
    type: str
    subject: str
    source: str
    logged: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an event of a publication is. `duplicate`: it had been there before."""

    position: Position
    cursor: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """What can be had of a tenant's log: the events after `first` up to and with `last`, both of one epoch.

    `earlier` are epochs before it whose positions are still good, up to a sequence: the log was taken over by another run
    of the server, and nobody knows of an event that it lost. Never compare epochs by hand: ask `place`.
    """

    first: Position
    last: Position
    earlier: Mapping[str, int] = field(default_factory=dict)

    def place(self, position: Position) -> Position | None:
        """The position in the log's present epoch; None when the log cannot go on from there without a gap."""
        return None if self.why_not(position) else Position(self.last.epoch, position.sequence)

    def why_not(self, position: Position) -> GapReason.ValueType:
        """Why the log cannot go on from there; GAP_REASON_UNSPECIFIED, which is false, when it can."""
        known = self.last.sequence if position.epoch == self.last.epoch else self.earlier.get(position.epoch)
        if known is None or (position.sequence > known and position.epoch != self.last.epoch):
            return GapReason.GAP_REASON_EPOCH_CHANGED
        if position.sequence > known:
            return GapReason.GAP_REASON_AHEAD_OF_LOG
        if position.sequence < self.first.sequence:
            return GapReason.GAP_REASON_TOO_OLD
        return GapReason.GAP_REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Broken:
    """A shard cannot be followed without a hole: its log was lost or rolled back, or went on faster than it was followed.
    `tenant` is the only one concerned, or empty: all of the shard. Look at the extent of each tenant that is followed:
    `place` says who can go on from where they are, by reading, and who must be told of a gap."""

    epoch: str
    tenant: str = ""


class EventLog(Protocol):
    """One ordered log a tenant. Every method raises ApiError: EVENTS_UNAVAILABLE (UNAVAILABLE, with a time to come back)
    when the log does not answer within its time, and BREAKER_OPEN at once while the breaker is open."""

    def shard_of(self, tenant: str) -> int:
        """The shard that the tenant's log is in, from 0; the same in every process, for ever."""
        ...

    def cursor(self, tenant: str, position: Position) -> str:
        """The cursor of a position."""
        ...

    async def publish(self, tenant: str, events: Sequence[CloudEvent]) -> list[Placed]:
        """Append all of them, in order, or none. One whose source and id are in the log already, or come twice, is dropped
        and placed where the first is. What this returns is stored."""
        ...

    async def extent(self, tenant: str) -> Extent:
        """How far the tenant's log reaches now. Of a tenant without events: from 0 to 0."""
        ...

    async def read(self, tenant: str, after: Position, *, limit: int, max_bytes: int) -> list[Entry]:
        """Events after a position, oldest first: at most `limit`, and no more than `max_bytes` unless the first is
        larger. Nothing when the extent has no place for `after`: look at the extent."""
        ...

    def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        """What is appended to a shard from now on, of all tenants, in order: every event once, over reconnections. What
        cannot be followed without a hole is a `Broken`. A tenant's epoch may change from one entry to the next without
        one: its sequence goes on, and nothing is missing. The first is an empty list, as soon as following has begun: who
        asks for the extent after that misses nothing. Ends only when it is closed; waits while the log is away."""
        ...
