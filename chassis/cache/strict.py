"""Read-through for what must never be stale once a change was answered (sessions): fence first, then commit."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final

from chassis.cache import lease
from chassis.cache.flight import SingleFlight
from chassis.cache.port import Cache, CacheUnavailable, Load
from chassis.cache.readthrough import Outcomes, data_of, fill, taken
from chassis.cache.together import together
from chassis.telemetry.metrics import Metrics

_EPOCH: Final = 16
"""Characters of a run id that go into a key: 64 random bits tell runs apart, and keys are memory."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Held over `keys` in one run of the server; reads of them bypass the cache until it is lifted or its hold ends."""

    keys: tuple[str, ...]
    epoch: str
    mark: bytes


class StrictReadThrough:
    """Keys: `<prefix>:{<key>}:<epoch>` holds the entry, with `:g` the token, with `:f` the fences.

    A change is: `fence` (its CacheUnavailable means that nothing was changed), commit, `lift`. While a key is fenced
    no token is given out and none that was is good, so nothing that was read before the commit can be cached after
    it, even if the process dies at the commit. The epoch is the server's run: one that comes back with old data is
    not believed. Not covered: two primaries that serve at the same time, and the eviction of a fence (give the
    server `noeviction` or `volatile-*` with room).
    """

    def __init__(
        self,
        cache: Cache,
        epoch: Callable[[], str | None],
        prefix: str,
        lives: lease.Lives,
        metrics: Metrics,
        random: Random | None = None,
    ) -> None:
        self._cache = cache
        self._epoch = epoch
        self._prefix = prefix
        self._lives = lives
        self._random = random or SystemRandom()
        self._count = Outcomes(metrics, prefix)
        self._lease_ms = round(lives.lease_ttl * 1000)
        self._flights: SingleFlight[bytes | None] = SingleFlight()

    async def get(self, key: str, load: Load) -> bytes | None:
        """As the ReadThrough port's. Reads the store while the key is fenced or the cache is away."""
        epoch = self._epoch() or await self._reached()
        token = b""
        if epoch is not None:
            try:
                entry, token = await self._look(key, epoch)
            except CacheUnavailable:
                entry = None
            if entry is not None:
                (self._count.hit if entry.data is not None else self._count.absent).inc()
                return entry.data
        if epoch is None or not token:
            self._count.bypass.inc()
            return data_of(await load())
        self._count.miss.inc()

        async def load_and_fill() -> bytes | None:
            found = await load()
            if self._epoch() != epoch:
                return data_of(found)
            seconds = self._lives.of(found, self._random)
            names = self._names(key, epoch)[:2]
            return await fill(self._cache, lease.FILL, names, token, found, seconds, self._count)

        return await self._flights.run(key, token, load_and_fill)

    async def fence(self, *keys: str, hold: float) -> Fence:
        """Before the commit. `hold` seconds: longer than the commit may take. Raises CacheUnavailable: do not commit.

        Where some keys were fenced before another failed, their fences end by their hold.
        """
        epoch = self._epoch() or await self._reached()
        if epoch is None:
            raise CacheUnavailable
        mark = lease.fresh_token(self._random)
        milliseconds = round(hold * 1000)
        runs = [self._cache.run(lease.FENCE, self._names(key, epoch), (mark, milliseconds)) for key in keys]
        await together(runs)
        self._same_run(epoch)
        return Fence(keys, epoch, mark)

    async def lift(self, fence: Fence) -> bool:
        """After the commit and before its caller is answered; after a commit that failed, too.

        False: the cache could not be told. The fence then ends by its hold, and the change is safe unless the server
        restarted between fence and commit: answer OK only once a later `lift` (the outbox's) returned True.
        """
        epochs = {fence.epoch, self._epoch() or fence.epoch}
        runs = [
            self._cache.run(lease.LIFT, self._names(key, epoch), (fence.mark,))
            for key in fence.keys
            for epoch in epochs
        ]
        try:
            await together(runs)
        except CacheUnavailable:
            told = False
        else:
            # Else it came back as another run meanwhile, whose entries were not named.
            told = self._epoch() in epochs
        (self._count.invalidated if told else self._count.not_invalidated).inc(len(fence.keys))
        return told

    async def forget(self, *keys: str) -> None:
        """Drop what is cached and refuse what is being loaded, without a fence: after a change that made nothing less
        alive, or to repeat an invalidation that may have been lost. Raises CacheUnavailable."""
        epoch = self._epoch() or await self._reached()
        if epoch is None:
            raise CacheUnavailable
        await together([self._cache.run(lease.LIFT, self._names(key, epoch), (b"",)) for key in keys])
        self._same_run(epoch)

    async def close(self) -> None:
        """End the loads in progress. The cache is its owner's to close."""
        await self._flights.close()

    async def _look(self, key: str, epoch: str) -> tuple[lease.Entry | None, bytes]:
        names = self._names(key, epoch)
        value = await self._cache.get(names[0])
        entry = None if value is None else lease.decode(value)
        if entry is not None:
            return entry, b""
        self._same_run(epoch)
        arguments = (lease.fresh_token(self._random), self._lease_ms)
        return taken(await self._cache.run(lease.TAKE_UNFENCED, names, arguments))

    async def _reached(self) -> str | None:
        """The server's run, of a client that has not connected yet: it does with its first command."""
        with suppress(CacheUnavailable):
            await self._cache.get(f"{self._prefix}:reached")
        return self._epoch()

    def _same_run(self, epoch: str) -> None:
        # A name of one run means nothing on the next one's server.
        if self._epoch() != epoch:
            raise CacheUnavailable

    def _names(self, key: str, epoch: str) -> tuple[str, str, str]:
        name = f"{self._prefix}:{{{key}}}:{epoch[:_EPOCH]}"
        return name, f"{name}:g", f"{name}:f"
