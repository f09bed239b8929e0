"""One run: a platform, its callers, faults one after another, then quiet; and what the checks say of it."""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos import checks
from tests.chaos.checks import Bounds
from tests.chaos.clients import Clients, Lag
from tests.chaos.faults import ON_ANY, ON_FIRESTORE, Faults
from tests.chaos.history import Disturbance, History
from tests.chaos.load import Load
from tests.chaos.watch import Watch
from tests.chaos.world import FLOOD_BURST, FLOOD_RATE, FLOODED, Shape, world

_CALM: Final = 1.5
"""Seconds without a failure that count as recovered."""
_AWAY: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "500", "502"})


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` of faults, or as many as `acts`. `recovery`: how long a recovery is waited for, 0 not at all. `strict`:
    whether deadlines and what is held are looked at, which a busy machine may not allow."""

    seed: int
    seconds: float
    shape: Shape = field(default_factory=Shape)
    bounds: Bounds = field(
        default_factory=lambda: Bounds(flooding=FLOODED, rate=FLOOD_RATE, burst=FLOOD_BURST, buckets=2)
    )
    acts: Sequence[str] = ()
    tenants: int = 4
    devices: int = 6
    readers: int = 8
    pause: float = 0.1
    timeout: float = 1.0
    scale: float = 1.0
    recovery: float = 60.0
    settle: float = 120.0
    strict: bool = True
    say: bool = True


@dataclass(slots=True)
class Report:
    history: History
    broken: dict[str, list[str]]
    seconds: float
    restarts: int

    @property
    def kept(self) -> bool:
        return not any(self.broken.values())


async def run(plan: Plan, folder: Path) -> Report:
    """Raises AssertionError when the platform does not start, or does not come back."""
    began = time.monotonic()
    history, random, lag = History(), Random(plan.seed), Lag()
    async with world(plan.shape, folder, plan.seed) as made:
        clients = Clients(made, history, plan.timeout)
        load = Load(made, clients, history, Random(plan.seed + 1), pause=plan.pause)
        faults = Faults(made, load, history, random, plan.scale)
        watch = Watch(made, history)
        beside = [asyncio.create_task(watch.run()), asyncio.create_task(lag.watch())]
        tenants = [f"t{number}" for number in range(plan.tenants)]

        async def faulty() -> None:
            await asyncio.sleep(3 * plan.scale)
            if plan.strict:
                history.before = await watch.holdings()
            await _disturb(plan, faults, history, random)
            await asyncio.sleep(1)

        async def quiet() -> None:
            await load.settle(tenants, plan.settle)
            if plan.strict:
                await asyncio.sleep(5)
                history.after = await watch.holdings()

        try:
            await load.run(plan.tenants, plan.devices, plan.readers, faulty, quiet)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await clients.close()
        for call in history.calls:
            call.lag = lag.between(call.began, call.ended)
        watch.read_logs()
        broken = judged(plan, history, faults)
    return Report(history, broken, time.monotonic() - began, len(made.restarts))


def judged(plan: Plan, history: History, faults: Faults) -> dict[str, list[str]]:
    found = {name: check(history, plan.bounds) for name, check in checks.CHECKS.items() if name != "4 breakers"}
    stepped = {(name, start) for name, start in faults.stepped}
    found["4 breakers"] = checks.breakers(history, plan.bounds, stepped)
    found["3 deadlines"] = checks.deadlines(history, plan.bounds, faults.stood_still) if plan.strict else []
    found["recovery"] = [
        f"{each.name}: not within {plan.recovery:.0f} s"
        for each in history.disturbances
        if plan.recovery and each.recovered is None
    ]
    found["something happened"] = _quiet(history)
    return dict(sorted(found.items()))


def _quiet(history: History) -> list[str]:
    """A run in which nothing was done has shown nothing."""
    done = {
        "writes": sum(write.acknowledged is not None for write in history.writes),
        "reads": len(history.reads),
        "events": sum(map(len, history.log.values())),
        "events followed": sum(len(each.heard) for each in history.followers),
        "sessions revoked": sum(each.acknowledged is not None for each in history.sessions.revokes),
    }
    return [f"no {name}" for name, number in done.items() if not number]


async def _disturb(plan: Plan, faults: Faults, history: History, random: Random) -> None:
    end = time.monotonic() + plan.seconds
    for name in _order(plan, random):
        if time.monotonic() >= end:
            return
        disturbance = await faults.befall(name)
        if plan.recovery:
            await _recovered(disturbance, history, plan.recovery)
            if plan.say:
                sys.stdout.write(f"{disturbance.name}: {disturbance.recovered}\n")
                sys.stdout.flush()
        else:
            await asyncio.sleep(random.uniform(0.3, 1.0))


def _order(plan: Plan, random: Random) -> Iterator[str]:
    """Each that there is, in an order by chance, and so again."""
    if plan.acts:
        yield from plan.acts
        return
    names = [*ON_ANY, *(ON_FIRESTORE if plan.shape.store == "firestore" else ())]
    for _ in itertools.count():
        yield from random.sample(names, len(names))


async def _recovered(disturbance: Disturbance, history: History, within: float) -> None:
    """Wait until for a while every kind of call, at every process, was answered, and none failed."""
    end = disturbance.ended + within
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        now = time.monotonic()
        since = max(disturbance.ended, now - _CALM)
        recent = [call for call in history.calls[-3000:] if call.ended > disturbance.ended]
        failed = [call.ended for call in recent if call.outcome in _AWAY]
        if now - since < _CALM or (failed and now - failed[-1] < _CALM):
            continue
        if {(call.where, call.kind) for call in recent if call.outcome == "OK"} >= _kinds(history):
            disturbance.recovered = max([0.0, *(moment - disturbance.ended for moment in failed)])
            return


def _kinds(history: History) -> set[tuple[str, str]]:
    """What is asked often enough to be waited for."""
    often = ("GetDevice", "UpdateDevice", "AuthenticateSession", "GET devices", "PATCH devices", "RevokeSession")
    return {(call.where, call.kind) for call in history.calls if call.kind in often and call.outcome == "OK"}
