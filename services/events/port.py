"""What the fan-out asks of the log: append, look, read, follow. `store.py` keeps these promises on Redis."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bas.events.v2.events_pb2 import CloudEvent
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
    """What can be had of a tenant's log: the events after `first` up to and with `last`, both of one epoch."""

    first: Position
    last: Position


@dataclass(frozen=True, slots=True)
class Broken:
    """The log of a shard was lost or rolled back: all positions in it that were given out are of an older epoch."""

    epoch: str


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
        larger. Nothing when `after` is not within the extent, or its epoch is not the current one: look at the extent."""
        ...

    def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        """What is appended to a shard from now on, of all tenants, in order: every event once, over reconnections. What
        cannot be followed without a hole is a `Broken`. Ends only when it is closed; waits while the log is away."""
        ...
