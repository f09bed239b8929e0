"""The Cache port in memory, with a clock of its own: for unit tests, and for stepping through interleavings.

Its scripts are Python twins of the Lua ones, held to them by tests/conformance/cache/test_scripts.py.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis.cache import lease
from chassis.cache.port import Arg, CacheUnavailable, Reply, Script
from chassis.clock import Clock

T = TypeVar("T")


class MemoryCache:
    """`away` makes every operation CacheUnavailable. Values end by the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}
        self._fences: dict[str, dict[bytes, float]] = {}
        self.away = False
        self.epoch: str | None = "run-1"
        self.operations = 0

    async def get(self, key: str) -> bytes | None:
        return await self._do(lambda: self._get(key))

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._do(lambda: [self._get(key) for key in keys])

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        if ttl <= 0:
            raise ValueError(f"ttl is {ttl!r} seconds")
        await self._do(lambda: self._set(key, value, ttl * 1000))

    async def delete(self, *keys: str) -> int:
        return await self._do(lambda: self._delete(*keys))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        words = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        return await self._do(lambda: self._twin(script)(keys, words))

    async def close(self) -> None:
        pass

    def evict(self, key: str) -> None:
        """What the server may do to any key at any time."""
        self._delete(key)

    def held(self) -> list[str]:
        return [key for key in self._values if self._get(key) is not None]

    def restart(self, epoch: str) -> None:
        """It comes back empty, under another run id."""
        self._values.clear()
        self._fences.clear()
        self.epoch = epoch

    async def _do(self, effect: Callable[[], T]) -> T:
        self.operations += 1
        if self.away:
            raise CacheUnavailable
        return effect()

    def _get(self, key: str) -> bytes | None:
        value, end = self._values.get(key, (None, 0.0))
        return value if end > self._clock.monotonic() else None

    def _set(self, key: str, value: bytes, milliseconds: float) -> None:
        self._values[key] = (value, self._clock.monotonic() + milliseconds / 1000)

    def _delete(self, *keys: str) -> int:
        existed = sum(self._get(key) is not None for key in set(keys))
        for key in keys:
            self._values.pop(key, None)
            self._fences.pop(key, None)
        return existed

    def _twin(self, script: Script) -> Callable[[Sequence[str], Sequence[bytes]], Reply]:
        return {
            lease.TAKE: self._take,
            lease.FILL: self._fill,
            lease.TAKE_UNFENCED: self._take_unfenced,
            lease.FENCE: self._fence,
            lease.LIFT: self._lift,
            lease.TAKE_GROUP: self._take_group,
            lease.FILL_GROUP: self._fill_group,
        }[script]

    def _take(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        value = self._get(keys[0])
        return [value] if value is not None else [None, self._take_group(keys[1:], args)]

    def _take_group(self, keys: Sequence[str], args: Sequence[bytes]) -> bytes:
        token = self._get(keys[0])
        if token is None:
            token = args[0]
            self._set(keys[0], token, float(args[1]))
        return token

    def _fill(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        value = self._get(keys[0])
        if value is not None:
            return value
        held = self._get(keys[1]) == args[0]
        self._delete(keys[1])
        if not held:
            return 0
        self._set(keys[0], args[1], float(args[2]))
        return 1

    def _fill_group(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        if self._get(keys[1]) != args[0]:
            self._delete(keys[1])
            return 0
        value = self._get(keys[0])
        if value is not None and value.startswith(args[0]):
            return value
        self._set(keys[0], args[1], float(args[2]))
        return 1

    def _take_unfenced(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        value = self._get(keys[0])
        if value is not None:
            return [value]
        now = self._clock.monotonic()
        if any(end > now for end in self._fences.get(keys[2], {}).values()):
            return [None, None]
        return [None, self._take_group(keys[1:2], args)]

    def _fence(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        self._delete(keys[0], keys[1])
        end = self._clock.monotonic() + float(args[1]) / 1000
        self._fences.setdefault(keys[2], {})[args[0]] = end
        return 1

    def _lift(self, keys: Sequence[str], args: Sequence[bytes]) -> Reply:
        self._delete(keys[0], keys[1])
        self._fences.get(keys[2], {}).pop(args[0], None)
        return 1
