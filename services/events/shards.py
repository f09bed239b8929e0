"""The shards of the log: their keys, and the one way in which scripts are run on them."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast
from zlib import crc32

from chassis.cache.port import Arg, CacheUnavailable, Reply, Script
from chassis.errors import ApiError, unavailable
from services.events.epoch import Witness

_AWAY: Final = CacheUnavailable().reason
_EPOCH_BYTES: Final = 9


class LogServer(Protocol):
    """What is needed of a cache client: scripts, and the name of the run that the next one is sent to."""

    @property
    def epoch(self) -> str | None: ...

    async def get(self, key: str) -> bytes | None: ...

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply: ...


class Shards:
    """`count` shards. Keys are `{ev:7}`, and below it the shard's feed and due times and its tenants' keys: a tenant's name
    is always last, so that no two keys meet, whatever it is."""

    def __init__(self, server: LogServer, count: int, random_bytes: Callable[[int], bytes]) -> None:
        self._server = server
        self._random_bytes = random_bytes
        self._witnesses = tuple(Witness() for _ in range(count))

    def __len__(self) -> int:
        return len(self._witnesses)

    def of(self, tenant: str) -> int:
        return crc32(tenant.encode()) % len(self._witnesses)

    def learn(self, shard: int, epoch: str, number: int) -> None:
        """What has been heard of a shard other than by `enter`."""
        self._witnesses[shard].learn(epoch, number)

    async def enter(self, shard: int, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> list[Reply]:
        """Run a script that enters the shard, and remember how far that has come. Raises EVENTS_UNAVAILABLE."""
        if self._server.epoch is None:
            await self._reach(shard)
        witness = self._witnesses[shard]
        # The name and the command go to the same connection: nothing is awaited between this and its sending. The fresh
        # epoch is of this one command, for it must never name two memories, whatever becomes of the answer.
        run = self._server.epoch
        if run is None:
            raise away()
        entering = (run, self._fresh(), witness.epoch, witness.number)
        answer = await self.run(script, (root(shard), *keys), (*entering, *args))
        epoch, number = cast(bytes, answer[0]).decode(), cast(int, answer[1])
        witness.learn(epoch, number)
        return answer

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> list[Reply]:
        """Run a script that answers with a list. Raises EVENTS_UNAVAILABLE, or a breaker's error as it is."""
        try:
            return cast("list[Reply]", await self._server.run(script, keys, args))
        except CacheUnavailable as problem:
            if problem.reason != _AWAY:
                raise
            raise away() from problem

    def _fresh(self) -> str:
        return urlsafe_b64encode(self._random_bytes(_EPOCH_BYTES)).decode()

    async def _reach(self, shard: int) -> None:
        """A client that has not connected yet does with its first command."""
        try:
            await self._server.get(f"{root(shard)}/reached")
        except CacheUnavailable as problem:
            if problem.reason != _AWAY:
                raise
            raise away() from problem


def root(shard: int) -> str:
    return f"{{ev:{shard}}}"


def feed(shard: int) -> str:
    return f"{{ev:{shard}}}/feed"


def due(shard: int) -> str:
    return f"{{ev:{shard}}}/due"


def state(shard: int, tenant: str) -> str:
    return f"{{ev:{shard}}}/state/{tenant}"


def log(shard: int, tenant: str) -> str:
    return f"{{ev:{shard}}}/log/{tenant}"


def identities(shard: int, tenant: str) -> tuple[str, str]:
    """The index of source and id → sequence: its younger generation, and the one before."""
    return f"{{ev:{shard}}}/ids/{tenant}", f"{{ev:{shard}}}/old/{tenant}"


def away() -> ApiError:
    """The log did not answer within its time, or cannot take any more. What was sent may have arrived."""
    return unavailable("EVENTS_UNAVAILABLE", "The event log does not answer.")
