"""The EventLog port in memory, held to the promises of the real one by tests/conformance/events."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from bas.events.v2.events_pb2 import CloudEvent
from chassis.api.cursors import Cursors, Position
from chassis.clock import Clock, FakeClock
from chassis.errors import ApiError, unavailable
from services.events.port import Broken, Entry, Extent, Placed
from services.events.records import entry, identity, record

SECRET = b"s" * 32


@dataclass(slots=True)
class _Tenant:
    first: int = 0
    """The sequence before the oldest event."""
    records: deque[bytes] = field(default_factory=deque)
    seen: dict[bytes, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return self.first + len(self.records)


@dataclass(slots=True)
class _Shard:
    epoch: str
    earlier: dict[str, dict[str, int]] = field(default_factory=dict)
    """Tenant → earlier epoch → the sequence up to which it holds."""
    tenants: dict[str, _Tenant] = field(default_factory=dict)
    followers: "list[asyncio.Queue[list[Entry] | Broken]]" = field(default_factory=list)


class MemoryEventLog:
    """`away` makes publish, extent and read EVENTS_UNAVAILABLE, and holds back what is followed until it is False again.
    `keep` is how many events of a tenant are retained."""

    def __init__(self, clock: Clock | None = None, *, shards: int = 4, keep: int = 10_000) -> None:
        self._clock = clock or FakeClock()
        self._cursors = Cursors(SECRET)
        self._keep = keep
        self._runs = 0
        self._back = asyncio.Event()
        self._back.set()
        self._shards = [_Shard(self._fresh()) for _ in range(shards)]
        self.reads = 0

    @property
    def away(self) -> bool:
        return not self._back.is_set()

    @away.setter
    def away(self, away: bool) -> None:
        (self._back.clear if away else self._back.set)()

    def shard_of(self, tenant: str) -> int:
        return crc32(tenant.encode()) % len(self._shards)

    def cursor(self, tenant: str, position: Position) -> str:
        return self._cursors.write(tenant, position)

    async def publish(self, tenant: str, events: Sequence[CloudEvent]) -> list[Placed]:
        await self._reached()
        shard, now = self._shard(tenant), self._clock.now()
        log = shard.tenants.setdefault(tenant, _Tenant())
        placed, added = [], []
        for event in events:
            name = identity(event)
            duplicate = name in log.seen
            if not duplicate:
                log.records.append(record(event, now))
                log.seen[name] = log.last
                added.append(self._entry(tenant, log.last, log.records[-1]))
            position = Position(shard.epoch, log.seen[name])
            placed.append(Placed(position, self.cursor(tenant, position), duplicate))
        while len(log.records) > self._keep:
            log.records.popleft()
            log.first += 1
        if added:
            self._tell(shard, added)
        return placed

    async def extent(self, tenant: str) -> Extent:
        await self._reached()
        return self._extent(tenant)

    async def read(self, tenant: str, after: Position, *, limit: int, max_bytes: int) -> list[Entry]:
        await self._reached()
        self.reads += 1
        placed = self._extent(tenant).place(after)
        if placed is None:
            return []
        log = self._shard(tenant).tenants.get(tenant, _Tenant())
        found: list[Entry] = []
        weight = 0
        for sequence in range(placed.sequence + 1, log.last + 1):
            next_entry = self._entry(tenant, sequence, log.records[sequence - log.first - 1])
            weight += len(next_entry.logged)
            if len(found) == limit or (found and weight > max_bytes):
                break
            found.append(next_entry)
        return found

    async def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        queue: asyncio.Queue[list[Entry] | Broken] = asyncio.Queue()
        self._shards[shard].followers.append(queue)
        try:
            await self._back.wait()
            yield []
            while True:
                told = await queue.get()
                await self._back.wait()
                yield told
        finally:
            self._shards[shard].followers.remove(queue)

    def followers(self, shard: int) -> int:
        return len(self._shards[shard].followers)

    def lose(self, shard: int, *, events: int | None = None) -> None:
        """The last `events` of each of its tenants are gone, or all: no position that was given out is good."""
        lost = self._shards[shard]
        lost.epoch, lost.earlier = self._fresh(), {}
        for log in lost.tenants.values():
            for _ in range(len(log.records) if events is None else min(events, len(log.records))):
                log.records.pop()
            log.seen = {name: sequence for name, sequence in log.seen.items() if sequence <= log.last}
        if events is None:
            lost.tenants.clear()
        self._tell(lost, Broken(lost.epoch))

    def restart(self, shard: int) -> None:
        """Another run of the server takes over and has lost nothing: a new epoch, and old positions stay good."""
        taken = self._shards[shard]
        old, taken.epoch = taken.epoch, self._fresh()
        for tenant, log in taken.tenants.items():
            taken.earlier.setdefault(tenant, {})[old] = log.last

    def skip(self, shard: int, tenant: str = "") -> None:
        """It went on faster than it was followed."""
        self._tell(self._shards[shard], Broken(self._shards[shard].epoch, tenant))

    async def _reached(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise away()

    def _shard(self, tenant: str) -> _Shard:
        return self._shards[self.shard_of(tenant)]

    def _extent(self, tenant: str) -> Extent:
        shard = self._shard(tenant)
        log = shard.tenants.get(tenant, _Tenant())
        return Extent(
            Position(shard.epoch, log.first), Position(shard.epoch, log.last), dict(shard.earlier.get(tenant, {}))
        )

    def _entry(self, tenant: str, sequence: int, kept: bytes) -> Entry:
        position = Position(self._shard(tenant).epoch, sequence)
        return entry(tenant, position, self.cursor(tenant, position), kept)

    def _tell(self, shard: _Shard, told: list[Entry] | Broken) -> None:
        for queue in shard.followers:
            queue.put_nowait(told)

    def _fresh(self) -> str:
        self._runs += 1
        return f"memory-{self._runs}"


def away() -> ApiError:
    return unavailable("EVENTS_UNAVAILABLE", "The event log does not answer.")
