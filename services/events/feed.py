"""Following a shard: its publications by a blocking read on a connection of its own, their events from the tenants' logs.

The feed says who published what, in order and numbered. A number that is missing, or an epoch that does not lead to what
was followed before, is a hole; while nothing comes, the shard is looked at once a second, for a log that is gone says
nothing.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chassis.api.cursors import Cursors
from chassis.cache.port import Reply
from chassis.clock import Clock
from chassis.errors import ApiError
from services.events import scripts, shards
from services.events.epoch import Lineage, parse_earlier
from services.events.port import Broken, Entry
from services.events.shards import Shards
from services.events.store import entries

BLOCK: Final = 1.0
"""Seconds that one read waits for a publication."""
PUBLICATIONS: Final = 256
"""Read at once."""
BYTES: Final = 1024 * 1024
"""Of events, fetched at once."""
TENANTS: Final = 64
"""Whose events are fetched at once."""
_MARGIN: Final = 2.0
_SHORTEST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Publication:
    """One line of the feed: events `first` to `last` of a tenant, the shard's publication number `number`."""

    name: str
    number: int
    epoch: str
    tenant: str
    first: int
    last: int


class FeedConnection(Protocol):
    """A blocking reader of one shard's feed."""

    async def read(self, after: str) -> list[Publication]:
        """Publications after a feed id, as soon as there are any; none after `BLOCK` seconds. Raises RedisError, OSError."""
        ...

    async def close(self) -> None: ...


class RedisFeed:
    """Connects with its first read, and anew after a failure."""

    def __init__(self, url: str, connect_timeout: float, shard: int) -> None:
        self._key = shards.feed(shard)
        self._redis = Redis.from_url(
            url,
            max_connections=1,
            socket_timeout=BLOCK + _MARGIN,
            socket_connect_timeout=connect_timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    async def read(self, after: str) -> list[Publication]:
        answer: Any = await self._redis.xread({self._key: after}, count=PUBLICATIONS, block=round(BLOCK * 1000))
        return [_publication(name, fields) for _, lines in answer for name, fields in lines]

    async def close(self) -> None:
        await self._redis.aclose()


class Feeds:
    """Follows shards; every follower has a connection of its own, which lives as long as it is followed."""

    def __init__(
        self,
        over: Shards,
        connect: Callable[[int], FeedConnection],
        cursors: Cursors,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._shards = over
        self._connect = connect
        self._cursors = cursors
        self._clock = clock
        self._random = random
        self._log = structlog.get_logger("events.feed")

    async def follow(self, shard: int) -> AsyncIterator[list[Entry] | Broken]:
        """As the port's."""
        follower = _Follower(self._shards, self._connect(shard), self._cursors, shard)
        steps = 0
        try:
            while True:
                try:
                    told = await follower.step()
                    steps = 0
                except (RedisError, OSError, TimeoutError, ApiError) as problem:
                    if steps == 0:
                        self._log.warning("the feed cannot be read", shard=shard, problem=type(problem).__name__)
                    follower.doubt()
                    longest = min(_LONGEST_WAIT, _SHORTEST_WAIT * 2.0**steps)
                    steps = min(steps + 1, 16)
                    await self._clock.sleep(longest * (0.5 + 0.5 * self._random()))
                    continue
                for each in told:
                    yield each
        finally:
            with suppress(RedisError, OSError):
                await follower.close()


@dataclass(slots=True)
class _Range:
    tenant: str
    first: int
    last: int


class _Follower:
    """Where one follower is: the number and the epoch of the last publication that it took, and what it has not fetched."""

    def __init__(self, over: Shards, connection: FeedConnection, cursors: Cursors, shard: int) -> None:
        self._shards = over
        self._connection = connection
        self._cursors = cursors
        self._shard = shard
        self._lineage: Lineage | None = None
        self._epoch, self._number, self._name = "", 0, ""
        self._sure = False
        self._left: deque[_Range] = deque()

    def doubt(self) -> None:
        """Look at the shard before anything else."""
        self._sure = False

    async def step(self) -> list[list[Entry] | Broken]:
        """What has become known: nothing, entries, holes."""
        if not self._sure:
            return await self._look()
        if self._left:
            return await self._fetch()
        found = await self._connection.read(self._name)
        if not found:
            self.doubt()
            return []
        return await self._take(found)

    async def close(self) -> None:
        await self._connection.close()

    async def _look(self) -> list[list[Entry] | Broken]:
        lineage, newest = await self._state()
        first = self._lineage is None
        good = not first and lineage.holds(self._epoch, self._number)
        self._sure = True
        if good:
            self._lineage = lineage
            return []
        self._begin(lineage, newest)
        return [[] if first else Broken(lineage.epoch)]

    async def _take(self, found: list[Publication]) -> list[list[Entry] | Broken]:
        for index, each in enumerate(found):
            leads = self._lineage is not None and (
                each.epoch == self._lineage.epoch or each.number <= self._lineage.earlier.get(each.epoch, -1)
            )
            if leads and each.number == self._number + 1:
                self._epoch, self._number, self._name = each.epoch, each.number, each.name
                self._shards.learn(self._shard, each.epoch, each.number)
                self._want(each)
                continue
            # Either the log was taken over, and goes on from here, or there is a hole.
            lineage, newest = await self._state()
            if not leads and lineage.holds(self._epoch, self._number) and lineage.holds(each.epoch, each.number):
                self._lineage = lineage
                return await self._take(found[index:])
            self._begin(lineage, newest)
            return [Broken(lineage.epoch)]
        return []

    def _begin(self, lineage: Lineage, newest: str) -> None:
        self._lineage, self._epoch, self._number, self._name = lineage, lineage.epoch, lineage.reached, newest
        self._left.clear()

    def _want(self, each: Publication) -> None:
        for wanted in self._left:
            if wanted.tenant == each.tenant and wanted.last + 1 == each.first:
                wanted.last = each.last
                return
        self._left.append(_Range(each.tenant, each.first, each.last))

    async def _fetch(self) -> list[list[Entry] | Broken]:
        asked = [self._left[index] for index in range(min(TENANTS, len(self._left)))]
        keys: list[str] = []
        bounds: list[int] = []
        for each in asked:
            keys += (shards.state(self._shard, each.tenant), shards.log(self._shard, each.tenant))
            bounds += (each.first, each.last)
        complete, *answers = await self._shards.run(scripts.FETCH, keys, (BYTES, *bounds))
        found: list[Entry] = []
        told: list[list[Entry] | Broken] = []
        for index, (each, answer) in enumerate(zip(asked, answers, strict=False)):
            epoch, *pairs = cast("list[Reply]", answer)
            came = entries(self._cursors, each.tenant, cast(bytes, epoch).decode(), pairs)
            done = index < cast(int, complete)
            if done:
                self._left.popleft()
            if _whole(each, came, done=done):
                found += came
                each.first += len(came)
            else:
                told.append(Broken(self._epoch, each.tenant))
                if not done:
                    self._left.popleft()
        return [found, *told] if found else told

    async def _state(self) -> tuple[Lineage, str]:
        answer = await self._shards.enter(self._shard, scripts.STATE, (shards.feed(self._shard),))
        epoch, number, earlier, newest = answer
        lineage = Lineage(cast(bytes, epoch).decode(), cast(int, number), parse_earlier(cast(bytes, earlier)))
        return lineage, cast(bytes, newest).decode()


def _whole(wanted: _Range, came: list[Entry], *, done: bool) -> bool:
    """Whether these are the first of the range, or all of it."""
    return (not done or len(came) == wanted.last - wanted.first + 1) and (
        not came
        or (came[0].position.sequence == wanted.first and came[-1].position.sequence - wanted.first + 1 == len(came))
    )


def _publication(name: bytes, fields: dict[bytes, bytes]) -> Publication:
    return Publication(
        name=name.decode(),
        number=int(fields[b"n"]),
        epoch=fields[b"e"].decode(),
        tenant=fields[b"t"].decode(),
        first=int(fields[b"f"]),
        last=int(fields[b"l"]),
    )
