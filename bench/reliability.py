"""What a failing part costs the others: attempts at a backend that is down, one tenant beside another's flood,
and the time until all is well again. The faults are those of `tests/chaos`."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc

from bench.report import Report
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Config
from chassis.errors import ApiError
from chassis.policies import Policy, Retry
from chassis.resilience.breaker import Breaker, Guard
from chassis.resilience.retry import WINDOW
from chassis.telemetry.metrics import Metrics
from tests.chaos.history import Call, History
from tests.chaos.run import Plan
from tests.chaos.run import run as disturb
from tests.chaos.world import FLOODED, PATIENT, Shape

_PATH: Final = "/bas.bench.v2.Backend/Ask"
_ACTS: Final = (
    "process killed",
    "service cut",
    "cache stalled",
    "cache restarted empty",
    "store unavailable",
    "log killed",
)


async def reliability(report: Report, folder: Path, *, quick: bool) -> None:
    await attempts(report, quick=quick)
    await disturbances(report, folder, quick=quick)


async def attempts(report: Report, *, quick: bool) -> None:
    """A backend that refuses everything, called 200 times a second for longer than the budget looks back."""
    config, calls = Config(), 1000 if quick else 3000
    for name, guarded in (("without a breaker", False), ("behind the breaker", True)):
        seen: Counter[str] = Counter()
        clock = SystemClock()
        begun = clock.monotonic()
        server, port = await _refusing(seen)
        guard: Guard | None = Breaker("backend", config.breaker, clock) if guarded else None
        client = Client(
            f"127.0.0.1:{port}",
            config=config.grpc,
            deadline=config.deadline,
            metrics=Metrics(),
            clock=clock,
            random=random.random,
            guard=guard,
        )
        call = client.unary(_PATH, Policy(scope="", retry=Retry.SAFE))
        for _ in range(calls):
            try:
                await call(b"x", 5.0)
            except ApiError:
                await asyncio.sleep(0.004)
        await client.close()
        await server.stop(None)
        note = f"{seen['attempts']} attempts of {calls} calls in {clock.monotonic() - begun:.0f} s; 3 in 10 s are always allowed"
        allowed = config.retry.floor * (1 + (clock.monotonic() - begun) / WINDOW)
        ratio = (seen["attempts"] - allowed) / calls
        report.at_most(f"attempts at a failing backend a call, {name}", ratio, 1.2, note=note)


async def _refusing(seen: Counter[str]) -> tuple[Any, int]:
    async def refuse(_: bytes, rpc: Any) -> bytes:
        seen["attempts"] += 1
        await rpc.abort(grpc.StatusCode.UNAVAILABLE, "no")
        raise AssertionError

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    service, _, method = _PATH.lstrip("/").partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def disturbances(report: Report, folder: Path, *, quick: bool) -> None:
    """Processes of `tests/chaos`, with its callers: how long until every kind of call succeeds, and stays so."""
    place = folder / "chaos"
    place.mkdir()
    acts = ("tenant flood", *(_ACTS[:2] if quick else _ACTS))
    plan = Plan(7, 3600.0, Shape("firestore", settings=PATIENT), acts=acts, strict=False, recovery=60.0, say=False)
    result = await disturb(plan, place)
    for each in result.history.disturbances:
        took = float("inf") if each.recovered is None else each.recovered
        report.below(f"recovery: {each.name}", took, 30.0, "s")
    beside, without = _beside(result.history)
    share = beside[0] / max(1, beside[1])
    note = f"{beside[1]} calls; in quiet {without[0] / max(1, without[1]):.3f}"
    report.at_least("others' success while one tenant floods", share, 0.95, note=note)
    broken = sum(map(len, result.broken.values()))
    report.at_most("promises broken meanwhile", broken, 0, "")


def _beside(history: History) -> tuple[tuple[int, int], tuple[int, int]]:
    """Successes and calls of the others: during the flood, and before anything had happened."""
    flood = next(each for each in history.disturbances if each.name.startswith("tenant flood"))

    def counted(calls: list[Call]) -> tuple[int, int]:
        good = sum(call.outcome in ("OK", "UNAUTHENTICATED", "NOT_FOUND", "ABORTED") for call in calls)
        return good, len(calls)

    others = [call for call in history.calls if call.tenant != FLOODED]
    during = [call for call in others if flood.began <= call.began <= flood.ended]
    return counted(during), counted([call for call in others if call.ended < flood.began])
