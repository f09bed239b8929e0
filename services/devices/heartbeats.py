"""Presence in the cache: who was heard of when, and whose silence is due. Every method may raise CacheUnavailable.

Devices are spread over shards, each with one hash tag: `{hb:NN}/s/<tenant>/<device>` holds a device's run and times,
`{hb:NN}/due` orders the shard's devices by when their silence becomes a lapse, `{hb:NN}/watch` says since when the
shard's memory is whole.
"""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from chassis.cache.port import Cache, Reply
from chassis.clock import Clock
from services.devices import scripts
from services.devices.presence import RETIRED_RUNS, Beat, Limits, millis

SHARDS: Final = 64

CLAIM_LEASE: Final = 30_000
"""Milliseconds for which a claimed device is left alone by other sweeps; it is due again if its sweep fails."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a heartbeat came to. `fresh`: it is news. `live`: the device is not silent. `flush`: this caller, and no
    other, is to write it to the store. `now`: when, in milliseconds."""

    fresh: bool
    live: bool
    flush: bool
    now: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a device. `last` is 0 when nothing is; `settled`: the memory is whole for long enough that
    knowing nothing means silence."""

    now: int
    last: int
    settled: bool


class Heartbeats:
    """Presence of all tenants' devices. With `clock` its time counts, else the cache server's."""

    def __init__(self, cache: Cache, limits: Limits, *, watch_gap: int, clock: Clock | None = None) -> None:
        """`watch_gap`: milliseconds between two claims of a shard after which heartbeats may have been lost."""
        self._cache = cache
        self._limits = limits
        self._watch_gap = watch_gap
        self._clock = clock

    async def beat(self, tenant: str, device_id: str, beat: Beat) -> Heard:
        state, due, member = _place(tenant, device_id)
        reply = await self._cache.run(
            scripts.BEAT,
            [state, due],
            [
                self._now(),
                member,
                beat.boot,
                f"{beat.sequence:019d}",
                self._limits.offline_after,
                self._limits.flush_interval,
                RETIRED_RUNS,
            ],
        )
        fresh, live, flush, now = _numbers(reply)
        return Heard(fresh == 1, live == 1, flush == 1, now)

    async def unflush(self, tenant: str, device_id: str) -> None:
        """The write that `beat` asked for came to nothing: the next heartbeat asks again."""
        state, _, _ = _place(tenant, device_id)
        await self._cache.run(scripts.UNFLUSH, [state])

    async def quiet(self, tenant: str, device_id: str) -> None:
        """The device counts as silent until its next heartbeat."""
        state, due, member = _place(tenant, device_id)
        await self._cache.run(scripts.QUIET, [state, due], [member])

    async def forget(self, tenant: str, device_id: str) -> None:
        """The device is no more."""
        state, due, member = _place(tenant, device_id)
        await self._cache.run(scripts.FORGET, [state, due], [member])

    async def claim(self, shard: int, limit: int) -> list[tuple[str, str]]:
        """Up to `limit` (tenant, device id) of the shard whose silence is due, for this caller to look into."""
        arguments = [self._now(), self._limits.offline_after, self._watch_gap, CLAIM_LEASE, limit]
        reply = await self._cache.run(scripts.CLAIM, [_key(shard, "watch"), _key(shard, "due")], arguments)
        return [_parted(member) for member in _texts(reply)]

    async def look(self, tenant: str, device_id: str) -> Sight:
        state, _, _ = _place(tenant, device_id)
        shard = shard_of(tenant, device_id)
        arguments = [self._now(), self._limits.offline_after, self._watch_gap]
        now, last, settled = _numbers(await self._cache.run(scripts.LOOK, [state, _key(shard, "watch")], arguments))
        return Sight(now, last, settled == 1)

    async def settle(self, tenant: str, device_id: str, last: int) -> None:
        """The lapse of a device last seen then is dealt with."""
        state, due, member = _place(tenant, device_id)
        await self._cache.run(scripts.SETTLE, [state, due], [member, str(last)])

    async def turn(self, name: str, milliseconds: int) -> bool:
        """True for one caller of all replicas in that time."""
        return _number(await self._cache.run(scripts.TURN, [f"{{hb:turn}}/{name}"], [milliseconds])) == 1

    def _now(self) -> int:
        return 0 if self._clock is None else millis(self._clock.now())


def shard_of(tenant: str, device_id: str) -> int:
    return crc32(f"{tenant}/{device_id}".encode()) % SHARDS


def _key(shard: int, name: str) -> str:
    return f"{{hb:{shard:02d}}}/{name}"


def _place(tenant: str, device_id: str) -> tuple[str, str, str]:
    """State key, due key and member; no tenant and no id holds a slash."""
    member = f"{tenant}/{device_id}"
    shard = shard_of(tenant, device_id)
    return _key(shard, f"s/{member}"), _key(shard, "due"), member


def _parted(member: str) -> tuple[str, str]:
    tenant, _, device_id = member.partition("/")
    return tenant, device_id


def _number(reply: Reply) -> int:
    if not isinstance(reply, int):
        raise TypeError(f"a script answered {type(reply).__name__}, not a number")
    return reply


def _numbers(reply: Reply) -> list[int]:
    if not isinstance(reply, list):
        raise TypeError(f"a script answered {type(reply).__name__}, not a list")
    return [_number(item) for item in reply]


def _texts(reply: Reply) -> list[str]:
    if not isinstance(reply, list):
        raise TypeError(f"a script answered {type(reply).__name__}, not a list")
    return [item.decode() for item in reply if isinstance(item, bytes)]
