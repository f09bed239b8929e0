"""The cache port: what the rest of the house may ask of Redis/Valkey, and how it learns that it is away."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Protocol, TypeAlias

from chassis.errors import ApiError, Code

Arg: TypeAlias = bytes | str | int | float
Reply: TypeAlias = "int | bytes | list[Reply] | None"


class CacheUnavailable(ApiError):
    """The cache did not answer within its budget. A read never lets this out: it asks the store instead."""

    def __init__(self, message: str = "The cache cannot be reached.") -> None:
        super().__init__(Code.UNAVAILABLE, "CACHE_UNAVAILABLE", message, retry_after=1.0)


@dataclass(frozen=True, slots=True)
class Script:
    """A server-side script, atomic; sent by hash and loaded when the server does not know it.

    Every key it touches is passed in KEYS and shares one hash tag, so that it runs on a cluster, too. `always`: tried
    even while the breaker is open, as removals are, since until it is done others would read what is no longer so: that
    this process cannot reach the cache does not mean that nobody can.
    """

    name: str
    source: str
    always: bool = False
    sha: str = field(init=False, repr=False, compare=False)
    """Of the source; made once, for it is sent with every call."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


class Cache(Protocol):
    """Commands, each answered within the operation timeout or CacheUnavailable. Keys are text, values bytes."""

    @property
    def epoch(self) -> str | None:
        """Names the server's run: changes when it restarts, None while it is away."""
        ...

    async def get(self, key: str) -> bytes | None: ...

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """One answer for each key, in order, from one round trip (one a slot in Cluster)."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        """Store for `ttl` seconds (millisecond resolution, must be positive)."""
        ...

    async def delete(self, *keys: str) -> int:
        """How many existed."""
        ...

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        """Run a script. Raises CacheUnavailable; a script's own error is a RuntimeError: a bug."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load found: the serialized message, the document's version, and an optional bound on its life in seconds."""

    data: bytes
    version: str
    max_ttl: float | None = None


Load: TypeAlias = Callable[[], Awaitable[Loaded | None]]
LoadMany: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, Loaded | None]]]


class ReadThrough(Protocol):
    """Read-through under the lease-fill protocol (docs/cache.md). A failing cache is never an error of a read.

    `key` is the resource's key without prefix and hash tag: `acme/d1`; the separator is a character that no id may
    hold, so that two tenants' keys never meet.
    """

    async def get(self, key: str, load: Load) -> bytes | None:
        """The serialized message, or None when it does not exist. Concurrent misses of one key load once."""
        ...

    async def get_many(self, keys: Sequence[str], load: LoadMany) -> dict[str, bytes | None]:
        """The same for many keys: one round trip for the hits, one `load` for all misses."""
        ...

    async def invalidate(self, *keys: str) -> bool:
        """After a commit and before its caller is answered. False when the cache could not be told: staleness is then
        bounded by the TTL (and, later, by the outbox record)."""
        ...
