"""`make bench`: every budget with its figure. `python -m bench [--quick] [--only PART]… [--json FILE]`."""

import argparse
import asyncio
import platform as machine
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import devices, identity, parts
from bench.events import events
from bench.limits import limits
from bench.platform import platform
from bench.report import Report
from bench.startup import startup

PARTS = (
    "configuration",
    "validation",
    "breaker",
    "limits",
    "wiring",
    "cache",
    "store",
    "firestore",
    "startup",
    "events",
    "reliability",
    "grpc",
    "rest",
    "writes",
    "identity",
    "audit",
)


async def run(chosen: set[str], *, quick: bool) -> Report:
    """Run the chosen parts one after the other; each is bounded in count and time."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bas-bench-") as name:
        folder = Path(name)
        for part, tell in (
            ("configuration", parts.configuration),
            ("validation", parts.validation),
            ("breaker", parts.breaker),
        ):
            if part in chosen:
                tell(report)
        for part, measure in (
            ("limits", limits),
            ("wiring", parts.wiring),
            ("cache", parts.cache),
            ("store", parts.store),
            ("startup", startup),
        ):
            if part in chosen:
                await measure(report, folder)
        for part, imported in (
            ("firestore", _firestore),
            ("events", lambda: events),
            ("reliability", _reliability),
            ("audit", _audit),
        ):
            if part in chosen:
                await imported()(report, folder, quick=quick)
        doors = {
            "grpc": devices.grpc_reads,
            "rest": devices.rest_reads,
            "writes": devices.writes_and_lists,
            "identity": identity.sessions_and_users,
        }
        if chosen & set(doors):
            budget = devices.Budget(seconds=1.0 if quick else 4.0, devices=5_000 if quick else 20_000)
            size = len(devices.device("d1").SerializeToString()) + 60
            async with platform(folder, size) as place:
                await devices.seed(place, budget)
                for part, scenario in doors.items():
                    if part in chosen:
                        await scenario(place, report, budget)
    return report


def _firestore() -> Any:
    from bench.firestore import firestore  # noqa: PLC0415 - the client library takes a second to import

    return firestore


def _reliability() -> Any:
    from bench.reliability import reliability  # noqa: PLC0415 - it imports what tests are made of

    return reliability


def _audit() -> Any:
    from bench.audit import audit  # noqa: PLC0415 - it imports the gateway's codec and the verifier

    return audit


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure every budget of the platform on this machine.")
    parser.add_argument("--quick", action="store_true", help="short runs: to see that it works, not to quote")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument(
        "--json", type=Path, default=Path("build/bench.json"), help="where the rows are written as JSON"
    )
    chosen = parser.parse_args()
    begin = time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run(set(chosen.only or PARTS), quick=chosen.quick))
    report.write(chosen.json)
    print(report.table())
    print(
        f"\nPython {machine.python_version()}, {machine.machine()}, {time.perf_counter() - begin:.0f} s; rows in {chosen.json}"
    )
    for row in report.misses:
        print(f"MISS: {row.name}: {row.value:.4g} {row.unit}, budget {row.budget}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
