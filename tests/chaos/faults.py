"""What befalls the platform: one thing after another, each chosen and shaped by the seed, each made good at its end."""

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import TypeAlias

from tests.chaos.history import Call, Disturbance, History
from tests.chaos.load import Load
from tests.chaos.world import FLOODED, World
from tests.faults.proxy import Way
from tests.firestore.control import Control
from tests.firestore.faults import Fault, answer_lost, hang, latency, unavailable
from tests.support.eventually import eventually

Act: TypeAlias = "Callable[[Faults], Awaitable[str]]"
"""Does it, for as long as it takes, and says to whom."""


class Faults:
    """`scale` multiplies how long faults last."""

    def __init__(self, world: World, load: Load, history: History, random: Random, scale: float = 1.0) -> None:
        self.world = world
        self.load = load
        self.random = random
        self.history = history
        self.scale = scale
        self.still: list[tuple[str, float, float]] = []
        """Process, from when, until when: it stood still."""
        self.stepped: set[tuple[str, int]] = set()
        """Processes, by start, whose clocks were stepped."""

    async def befall(self, name: str) -> Disturbance:
        disturbance = Disturbance(name, time.monotonic())
        self.history.disturbances.append(disturbance)
        try:
            whom = await ACTS[name](self)
        finally:
            self.world.heal()
        disturbance.name = f"{name} {whom}".strip()
        disturbance.ended = time.monotonic()
        return disturbance

    async def lasts(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most) * self.scale)

    def a_process(self) -> str:
        return self.random.choice(list(self.world.parts))

    def stood_still(self, call: Call) -> bool:
        """Whether the process that was asked, or who asked it, stood still, or was ended, during the call."""
        return any(
            name in (call.where, "") and began <= call.ended and call.began <= ended
            for name, began, ended in self.still
        )

    def store(self) -> Control:
        return Control(self.world.store_address)


async def killed(faults: Faults) -> str:
    """SIGKILL; it is started again."""
    return await _ended(faults, faults.a_process(), signal.SIGKILL)


async def terminated(faults: Faults) -> str:
    return await _ended(faults, faults.a_process(), signal.SIGTERM)


async def rolling(faults: Faults) -> str:
    """Each process in turn, in good order."""
    for name in faults.world.parts:
        await _ended(faults, name, signal.SIGTERM)
    return ""


async def _ended(faults: Faults, name: str, signum: int) -> str:
    part = faults.world.parts[name]
    starts, began = part.starts, time.monotonic()
    part.signal(signum)
    await eventually(lambda: part.starts > starts, f"another start of {name}", within=60)
    await eventually(faults.world.answers, f"{name} to be ready", within=90, every=0.1)
    faults.still.append((name, began, time.monotonic()))
    return name


async def stopped(faults: Faults) -> str:
    """SIGSTOP, and SIGCONT."""
    name = faults.a_process()
    part, began = faults.world.parts[name], time.monotonic()
    part.signal(signal.SIGSTOP)
    try:
        await faults.lasts(0.5, 3)
    finally:
        part.signal(signal.SIGCONT)
        faults.still.append((name, began, time.monotonic() + 0.5))
    return name


async def blocked(faults: Faults) -> str:
    """Its event loop stands still."""
    name, seconds = faults.a_process(), faults.random.uniform(0.2, 1.0) * faults.scale
    began = time.monotonic()
    faults.world.parts[name].order(block=seconds)
    await asyncio.sleep(seconds + 0.2)
    faults.still.append((name, began, time.monotonic() + 0.3))
    return name


async def clock_stepped(faults: Faults) -> str:
    """Its wall clock is off for a while, and then right again."""
    name, step = faults.a_process(), faults.random.choice((-60, -3, 3, 60))
    part = faults.world.parts[name]
    faults.stepped.add((name, part.starts))
    part.order(step=step)
    try:
        await faults.lasts(2, 4)
    finally:
        part.order(step=0)
    return f"{name} {step:+d} s"


async def cache_stalled(faults: Faults) -> str:
    faults.world.cache.pause()
    try:
        await faults.lasts(0.1, 2)
    finally:
        faults.world.cache.resume()
    return ""


async def cache_empty(faults: Faults) -> str:
    await faults.world.cache.kill()
    await faults.lasts(0, 1)
    await faults.world.cache.restart()
    return ""


async def cache_old(faults: Faults) -> str:
    """It comes back with what it held a while ago."""
    cache = faults.world.cache
    await asyncio.to_thread(cache.command, "SAVE")
    dump, kept = cache.folder / "dump.rdb", cache.folder / "kept.rdb"
    shutil.copy(dump, kept)
    await faults.lasts(0.3, 1)
    await cache.kill()
    shutil.copy(kept, dump)
    faults.history.restored.append(time.monotonic())
    await cache.restart()
    faults.history.restored.append(time.monotonic())
    dump.unlink(missing_ok=True)
    return ""


async def cache_partitioned(faults: Faults) -> str:
    """One process's bytes, one way, do not arrive."""
    return await _held(faults, faults.world.cache_ways)


async def cache_flapping(faults: Faults) -> str:
    ways = list(faults.world.cache_ways.values())
    for _ in range(max(2, round(8 * faults.scale))):
        await asyncio.gather(*(way.cut() for way in ways))
        await asyncio.sleep(0.5)
        await asyncio.gather(*(way.mend() for way in ways))
        await asyncio.sleep(0.5)
    return ""


async def cache_slow(faults: Faults) -> str:
    for way in faults.world.cache_ways.values():
        way.delay = faults.random.uniform(0.01, 0.1)
    await faults.lasts(1, 3)
    return ""


async def log_stalled(faults: Faults) -> str:
    faults.world.log.pause()
    try:
        await faults.lasts(0.5, 3)
    finally:
        faults.world.log.resume()
    return ""


async def log_killed(faults: Faults) -> str:
    await faults.world.log.kill()
    await faults.lasts(0, 1)
    await faults.world.log.restart()
    faults.world.keep_log()
    return ""


async def log_partitioned(faults: Faults) -> str:
    return await _held(faults, {"": faults.world.log_way})


async def log_cut(faults: Faults) -> str:
    await faults.world.log_way.cut()
    try:
        await faults.lasts(0.5, 3)
    finally:
        await faults.world.log_way.mend()
    return ""


async def service_partitioned(faults: Faults) -> str:
    return await _held(faults, faults.world.service_ways)


async def service_cut(faults: Faults) -> str:
    """Whoever calls it finds nobody."""
    service = faults.random.choice(list(faults.world.service_ways))
    way = faults.world.service_ways[service]
    await way.cut()
    try:
        await faults.lasts(0.5, 3)
    finally:
        await way.mend()
    return service


async def _held(faults: Faults, ways: Mapping[str, object]) -> str:
    name = faults.random.choice(list(ways))
    way = ways[name]
    held = faults.random.choice((Way.UP, Way.DOWN, Way.BOTH))
    way.hold(held)  # type: ignore[attr-defined]  # a Proxy
    await faults.lasts(0.5, 3)
    way.release()  # type: ignore[attr-defined]  # as above
    return f"{name} {held.name or held}".strip()


async def store_unavailable(faults: Faults) -> str:
    return await _store(faults, "*", unavailable(), (0.5, 2))


async def store_hung(faults: Faults) -> str:
    return await _store(faults, "*", hang(), (0.5, 2))


async def store_slow(faults: Faults) -> str:
    return await _store(faults, "*", latency(faults.random.uniform(0.02, 0.3)), (1, 3))


async def store_loses_answers(faults: Faults) -> str:
    """Commits are applied, and answered as if they had not been."""
    return await _store(faults, "Commit", answer_lost(), (0.5, 2))


async def store_hangs_after(faults: Faults) -> str:
    return await _store(faults, "Commit", hang(after=True), (0.5, 2))


async def _store(faults: Faults, rpc: str, fault: Fault, span: tuple[float, float]) -> str:
    control = faults.store()
    try:
        await control.add_fault(rpc, fault, times=None)
        try:
            await faults.lasts(*span)
        finally:
            await control.clear_faults()
    finally:
        await control.close()
    return ""


async def store_clock_stepped(faults: Faults) -> str:
    control = faults.store()
    try:
        await control.set(skew=float(faults.random.choice((-30, 30))))
        await faults.lasts(1, 2)
        await control.set(skew=0.0)
    finally:
        await control.close()
    return ""


async def store_partitioned(faults: Faults) -> str:
    return await _held(faults, faults.world.store_ways)


async def flooded(faults: Faults) -> str:
    await faults.load.flood(FLOODED, callers=80, seconds=faults.random.uniform(2, 4) * faults.scale)
    return ""


ON_ANY: Mapping[str, Act] = MappingProxyType(
    {
        "process killed": killed,
        "process terminated": terminated,
        "process stopped": stopped,
        "loop blocked": blocked,
        "clock stepped": clock_stepped,
        "rolling restart": rolling,
        "cache stalled": cache_stalled,
        "cache restarted empty": cache_empty,
        "cache restarted with an old snapshot": cache_old,
        "cache partitioned": cache_partitioned,
        "cache flapping": cache_flapping,
        "cache slow": cache_slow,
        "log stalled": log_stalled,
        "log killed": log_killed,
        "log partitioned": log_partitioned,
        "log cut": log_cut,
        "service partitioned": service_partitioned,
        "service cut": service_cut,
        "tenant flood": flooded,
    }
)
ON_FIRESTORE: Mapping[str, Act] = MappingProxyType(
    {
        "store unavailable": store_unavailable,
        "store hung": store_hung,
        "store slow": store_slow,
        "store loses answers": store_loses_answers,
        "store hangs after commits": store_hangs_after,
        "store's clock stepped": store_clock_stepped,
        "store partitioned": store_partitioned,
    }
)
ACTS: Mapping[str, Act] = MappingProxyType({**ON_ANY, **ON_FIRESTORE})
