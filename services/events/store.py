"""The EventLog port on Redis or Valkey: a history and an index of identities for each tenant, a feed for each shard.

Keys of a shard share one hash tag, so that each script sees all that it decides on. No key has a TTL: nothing of the log
is evicted, and a full server refuses a publication as a whole.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from bas.events.v2.events_pb2 import CloudEvent
from chassis.api.cursors import Cursors, Position
from chassis.cache.port import Reply
from chassis.clock import Clock
from chassis.config import Events
from services.events import scripts, shards
from services.events.epoch import parse_earlier
from services.events.port import Broken, Entry, Extent, Placed
from services.events.records import entry, identity, record
from services.events.shards import Shards

FEED: Final = 10_000
"""Publications that a shard's feed keeps, of some 60 bytes each: how far behind its followers may be."""

_ENTERED: Final = 3
"""What a script that entered the shard answers before anything of its own."""

Follow: TypeAlias = Callable[[int], AsyncIterator[list[Entry] | Broken]]


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of each tenant, and for how long. Milliseconds."""

    count: int
    bytes: int
    age: int
    window: int

    @classmethod
    def of(cls, settings: Events) -> "Retention":
        return cls(
            count=settings.retention_count,
            bytes=settings.retention_bytes,
            age=round(settings.retention_age * 1000),
            window=round(settings.dedupe_window * 1000),
        )


class RedisEventLog:
    """`log_clock` is the clock of retention; None is the log server's, one for all replicas."""

    def __init__(
        self,
        over: Shards,
        follow: Follow,
        cursors: Cursors,
        retention: Retention,
        clock: Clock,
        *,
        log_clock: Clock | None = None,
    ) -> None:
        self._shards = over
        self._follow = follow
        self._cursors = cursors
        self._retention = retention
        self._clock = clock
        self._log_clock = log_clock

    def shard_of(self, tenant: str) -> int:
        return self._shards.of(tenant)

    def cursor(self, tenant: str, position: Position) -> str:
        return self._cursors.write(tenant, position)

    async def publish(self, tenant: str, events: Sequence[CloudEvent]) -> list[Placed]:
        now, shard, kept = self._clock.now(), self.shard_of(tenant), self._retention
        pairs: list[bytes] = []
        for event in events:
            pairs += (identity(event), record(event, now))
        answer = await self._shards.enter(
            shard,
            scripts.PUBLISH,
            (
                shards.feed(shard),
                shards.due(shard),
                shards.state(shard, tenant),
                shards.log(shard, tenant),
                *shards.identities(shard, tenant),
            ),
            (self._now(), tenant, kept.count, kept.bytes, kept.age, kept.window, FEED, *pairs),
        )
        epoch = cast(bytes, answer[2]).decode()
        placed = []
        for sequence in cast("list[int]", answer[_ENTERED:]):
            position = Position(epoch, abs(sequence))
            placed.append(Placed(position, self.cursor(tenant, position), duplicate=sequence < 0))
        return placed

    async def extent(self, tenant: str) -> Extent:
        return (await self.look(tenant, 0, limit=0, max_bytes=0))[0]

    async def read(self, tenant: str, after: Position, *, limit: int, max_bytes: int) -> list[Entry]:
        extent, found = await self.look(tenant, after.sequence, limit=limit, max_bytes=max_bytes)
        return [] if extent.place(after) is None else found

    async def look(self, tenant: str, after: int, *, limit: int, max_bytes: int) -> tuple[Extent, list[Entry]]:
        """The extent, and events after a sequence, seen at one moment."""
        shard = self.shard_of(tenant)
        answer = await self._shards.enter(
            shard,
            scripts.READ,
            (shards.state(shard, tenant), shards.log(shard, tenant)),
            (after, limit, max_bytes),
        )
        extent = _extent(answer)
        return extent, self.entries(tenant, extent.last.epoch, answer[_ENTERED + 1 :])

    def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        return self._follow(shard)

    async def sweep(self, shard: int, most: int) -> int:
        """Remove what became too old in up to `most` tenants; how many events went."""
        removed = 0
        for name in await self._shards.run(scripts.DUE, (shards.due(shard),), (self._now(), most)):
            tenant = cast(bytes, name).decode()
            keys = (shards.due(shard), shards.state(shard, tenant), shards.log(shard, tenant))
            arguments = (self._now(), tenant, self._retention.age, self._retention.window)
            (went,) = await self._shards.run(scripts.SWEEP, (*keys, *shards.identities(shard, tenant)), arguments)
            removed += cast(int, went)
        return removed

    def entries(self, tenant: str, epoch: str, found: Sequence[Reply]) -> list[Entry]:
        return entries(self._cursors, tenant, epoch, found)

    def _now(self) -> int:
        return 0 if self._log_clock is None else round(self._log_clock.now().timestamp() * 1000)


def entries(cursors: Cursors, tenant: str, epoch: str, found: Sequence[Reply]) -> list[Entry]:
    """Entries of ids (`<sequence>-<milliseconds>`) and records, one after the other."""
    made = []
    for name, kept in zip(found[::2], found[1::2], strict=True):
        position = Position(epoch, sequence_of(cast(bytes, name)))
        made.append(entry(tenant, position, cursors.write(tenant, position), cast(bytes, kept)))
    return made


def sequence_of(name: bytes) -> int:
    return int(name.partition(b"-")[0])


def _extent(answer: Sequence[Reply]) -> Extent:
    """Of what `READ` answers. A tenant keeps its epoch until it is published to: positions of it were given out."""
    epoch, earlier = cast(bytes, answer[0]).decode(), parse_earlier(cast(bytes, answer[2]))
    sequence, first, own, before = cast("list[bytes | None]", answer[_ENTERED])
    if sequence is None or first is None or own is None:
        start = Position(epoch, 0)
        return Extent(start, start, dict.fromkeys(earlier, 0))
    mine = own.decode()
    good = mine == epoch or mine in earlier
    now = mine if good else epoch
    return Extent(Position(now, int(first)), Position(now, int(sequence)), parse_earlier(before) if good else {})
