"""Read-through under lease-fill: for single resources by key, and for groups that are invalidated together."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from hashlib import blake2b
from random import Random, SystemRandom
from typing import Any, Final

from prometheus_client import Counter

from chassis.cache import lease
from chassis.cache.flight import SingleFlight
from chassis.cache.port import Arg, Cache, CacheUnavailable, Load, Loaded, LoadMany, Reply, Script
from chassis.cache.together import together
from chassis.cache.untold import could_not_tell
from chassis.telemetry.metrics import Metrics

_GROUP_TOKEN_LIVES: Final = 10
"""A group's token lives this many TTLs: its end costs every member one miss."""


class Outcomes:
    """Counters of one cache: `bas_cache_reads`, `bas_cache_fills`, `bas_cache_invalidations`, by outcome."""

    def __init__(self, metrics: Metrics, cache: str) -> None:
        def bound(name: str, documentation: str, outcomes: Sequence[str]) -> Mapping[str, Counter]:
            counter = metrics.counter(name, documentation, ("cache", "outcome"))
            return {outcome: counter.labels(cache, outcome) for outcome in outcomes}

        reads = bound(
            "bas_cache_reads",
            "Reads by outcome: bypass is a read that the cache could not serve.",
            ("hit", "absent", "miss", "bypass"),
        )
        self.hit, self.absent, self.miss, self.bypass = reads.values()
        fills = bound(
            "bas_cache_fills",
            "Fills by outcome: refused when an invalidation or another fill came first.",
            ("stored", "refused", "failed"),
        )
        self.stored, self.refused, self.failed = fills.values()
        invalidations = bound("bas_cache_invalidations", "Keys invalidated, by outcome.", ("ok", "failed"))
        self.invalidated, self.not_invalidated = invalidations.values()


class LeaseReadThrough:
    """The ReadThrough port. Keys: `<prefix>:{<key>}` holds the entry, `<prefix>:{<key>}:g` the token.

    A hit is one GET. A failing cache costs a read at most one operation's timeout and sends it to `load`.
    """

    def __init__(
        self, cache: Cache, prefix: str, lives: lease.Lives, metrics: Metrics, random: Random | None = None
    ) -> None:
        self._cache = cache
        self._prefix = prefix
        self._lives = lives
        self._random = random or SystemRandom()
        self._count = Outcomes(metrics, prefix)
        self._lease_ms = round(lives.lease_ttl * 1000)
        self._flights: SingleFlight[bytes | None] = SingleFlight()

    async def get(self, key: str, load: Load) -> bytes | None:
        try:
            value = await self._cache.get(f"{self._prefix}:{{{key}}}")
            entry = None if value is None else lease.decode(value)
            if entry is not None:
                return self._hit(entry)
            entry, token = await self._take(key)
            if entry is not None:
                return self._hit(entry)
        except CacheUnavailable:
            token = b""
        if not token:
            self._count.bypass.inc()
            return data_of(await load())
        self._count.miss.inc()

        async def load_and_fill() -> bytes | None:
            return await self._fill(key, token, await load())

        return await self._flights.run(key, token, load_and_fill)

    async def get_many(self, keys: Sequence[str], load: LoadMany) -> dict[str, bytes | None]:
        wanted = list(dict.fromkeys(keys))
        found: dict[str, bytes | None] = {}
        tokens: dict[str, bytes] = {}
        try:
            values = await self._cache.mget([f"{self._prefix}:{{{key}}}" for key in wanted])
            entries = [None if value is None else lease.decode(value) for value in values]
            missed = [key for key, entry in zip(wanted, entries, strict=True) if entry is None]
            found = {key: self._hit(entry) for key, entry in zip(wanted, entries, strict=True) if entry is not None}
            for key, (taken, token) in zip(missed, await together(map(self._take, missed)), strict=True):
                if taken is not None:
                    found[key] = self._hit(taken)
                else:
                    tokens[key] = token
                    self._count.miss.inc()
        except CacheUnavailable:
            tokens = {}
        missing = [key for key in wanted if key not in found]
        if missing:
            loaded = await load(missing)
            if not tokens:
                self._count.bypass.inc(len(missing))
                found |= {key: data_of(loaded.get(key)) for key in missing}
            else:
                fills = (self._fill(key, tokens[key], loaded.get(key)) for key in missing)
                found |= dict(zip(missing, await together(fills), strict=True))
        return {key: found[key] for key in wanted}

    async def invalidate(self, *keys: str) -> bool:
        for key in keys:
            self._flights.detach(key)
        return all(await together([self._invalidate(key) for key in keys]))

    async def close(self) -> None:
        """End the loads in progress. The cache is its owner's to close."""
        await self._flights.close()

    def _hit(self, entry: lease.Entry) -> bytes | None:
        (self._count.hit if entry.data is not None else self._count.absent).inc()
        return entry.data

    async def _take(self, key: str) -> tuple[lease.Entry | None, bytes]:
        name = f"{self._prefix}:{{{key}}}"
        reply = await self._cache.run(
            lease.TAKE, (name, f"{name}:g"), (lease.fresh_token(self._random), self._lease_ms)
        )
        return taken(reply)

    async def _fill(self, key: str, token: bytes, found: Loaded | None) -> bytes | None:
        name = f"{self._prefix}:{{{key}}}"
        keys = (name, f"{name}:g")
        return await fill(self._cache, lease.FILL, keys, token, found, self._lives.of(found, self._random), self._count)

    async def _invalidate(self, key: str) -> bool:
        name = f"{self._prefix}:{{{key}}}"
        return await told(self._cache, (name, f"{name}:g"), self._count)


class GroupReadThrough:
    """Read-through for answers made of many resources (a tenant's first page, a count): one invalidation of the group
    makes every member unreadable at once.

    Keys: `<prefix>:{<group>}:g` holds the group's token, `<prefix>:{<group>}:<digest of the member>` the token under
    which the entry was filled and the entry. An entry under another token is a miss. A hit is one MGET of the two.
    """

    def __init__(
        self, cache: Cache, prefix: str, lives: lease.Lives, metrics: Metrics, random: Random | None = None
    ) -> None:
        self._cache = cache
        self._prefix = prefix
        self._lives = lives
        self._random = random or SystemRandom()
        self._count = Outcomes(metrics, prefix)
        self._token_ms = round(max(lives.lease_ttl, _GROUP_TOKEN_LIVES * lives.ttl) * 1000)
        self._flights: SingleFlight[bytes | None] = SingleFlight()

    async def get(self, group: str, member: str, load: Load) -> bytes | None:
        """The bytes that `load` found for this member, or None when it found nothing. Members are any text."""
        held = f"{self._prefix}:{{{group}}}:g"
        name = f"{self._prefix}:{{{group}}}:{blake2b(member.encode(), digest_size=16).hexdigest()}"
        try:
            value, token = await self._cache.mget((name, held))
            entry = self._member(value, token)
            if entry is not None:
                (self._count.hit if entry.data is not None else self._count.absent).inc()
                return entry.data
            if token is None:
                reply = await self._cache.run(
                    lease.TAKE_GROUP, (held,), (lease.fresh_token(self._random), self._token_ms)
                )
                token = reply if isinstance(reply, bytes) else None
        except CacheUnavailable:
            token = None
        if token is None:
            self._count.bypass.inc()
            return data_of(await load())
        self._count.miss.inc()
        return await self._flights.run(name, token, self._work(name, held, token, load))

    async def invalidate(self, group: str) -> bool:
        """After a commit and before its caller is answered. False when the cache could not be told."""
        # Loads in progress need no detaching: the next reader is handed another token and does not join them.
        return await told(self._cache, (f"{self._prefix}:{{{group}}}:g",), self._count)

    async def close(self) -> None:
        """End the loads in progress. The cache is its owner's to close."""
        await self._flights.close()

    @staticmethod
    def _member(value: bytes | None, token: bytes | None) -> lease.Entry | None:
        if value is None or token is None or value[: lease.TOKEN_BYTES] != token:
            return None
        return lease.decode(value[lease.TOKEN_BYTES :])

    def _work(self, name: str, held: str, token: bytes, load: Load) -> Callable[[], Coroutine[Any, Any, bytes | None]]:
        async def load_and_fill() -> bytes | None:
            found = await load()
            seconds = self._lives.of(found, self._random)
            return await fill(
                self._cache, lease.FILL_GROUP, (name, held), token, found, seconds, self._count, prefix=token
            )

        return load_and_fill


def data_of(found: Loaded | None) -> bytes | None:
    return None if found is None else found.data


def taken(reply: Reply) -> tuple[lease.Entry | None, bytes]:
    """What TAKE answered: an entry, or None and the token (empty behind a fence)."""
    if not isinstance(reply, list):
        raise TypeError(f"TAKE answered {reply!r}")
    value = reply[0] if reply else None
    if isinstance(value, bytes):
        entry = lease.decode(value)
        # An entry of another release's format: read as if fenced, it is neither believed nor replaced.
        return entry, b""
    token = reply[1] if len(reply) > 1 else None
    return None, token if isinstance(token, bytes) else b""


async def fill(
    cache: Cache,
    script: Script,
    keys: Sequence[str],
    token: bytes,
    found: Loaded | None,
    seconds: float,
    count: Outcomes,
    *,
    prefix: bytes = b"",
) -> bytes | None:
    """Store what was found under its token, and return what the reader is to answer.

    Where another reader's fill came first, that is its entry and not what was loaded: an answer newer than the cache's
    would make the next reader's hit a step back in time.
    """
    milliseconds = int(seconds * 1000)
    if not token or milliseconds < 1:
        return data_of(found)
    arguments: tuple[Arg, ...] = (token, prefix + lease.encode(found), milliseconds)
    try:
        reply = await cache.run(script, keys, arguments)
    except CacheUnavailable:
        count.failed.inc()
        return data_of(found)
    if reply == 1:
        count.stored.inc()
        return data_of(found)
    count.refused.inc()
    entry = lease.decode(reply[len(prefix) :]) if isinstance(reply, bytes) else None
    return data_of(found) if entry is None else entry.data


async def told(cache: Cache, names: Sequence[str], count: Outcomes) -> bool:
    """Whether the cache took note of an invalidation."""
    try:
        await cache.delete(*names)
    except CacheUnavailable:
        count.not_invalidated.inc()
        could_not_tell(*names)
        return False
    count.invalidated.inc()
    return True
