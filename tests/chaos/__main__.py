"""`make chaos`: python -m tests.chaos [--seconds 600] [--seed N] [--store firestore|sqlite|both] [--bug NAME]"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import uvloop

from tests.chaos.run import Plan, Report, run
from tests.chaos.world import PATIENT, Shape, Store


def _plan(seed: int, seconds: float, store: Store, bug: str, acts: list[str], *, patient: bool) -> Plan:
    settings = PATIENT if patient else {}
    number = 2 if store == "firestore" else 1
    shape = Shape(store, number, number, bug, settings)
    return Plan(seed, seconds, shape, acts=acts, timeout=10.0 if patient else 1.0)


def _summary(store: str, report: Report) -> str:
    history = report.history
    outcomes = Counter(call.outcome for call in history.calls)
    acknowledged = sum(write.acknowledged is not None for write in history.writes)
    confirmed = sum(write.confirmed is not None for write in history.writes)
    lines = [
        f"{store}: {report.seconds:.0f} s, {len(history.calls)} calls, {report.restarts} restarts",
        "  " + ", ".join(f"{number} {name}" for name, number in outcomes.most_common()),
        f"  writes: {acknowledged} acknowledged, {confirmed} more found to be done",
        f"  events: {sum(map(len, history.log.values()))} in the log",
        f"  sessions: {len(history.sessions.uses)} uses, {len(history.sessions.revokes)} revocations",
        f"  breakers: {len(history.transitions)} transitions",
        *(
            f"  follower: {len(f.heard)} events, {f.connections} connections, {len(f.gaps)} gaps"
            for f in history.followers
        ),
        "",
        f"  {'fault':<42}{'times':>6}{'recovered after (s), worst':>28}",
    ]
    times: dict[str, list[float]] = defaultdict(list)
    for each in history.disturbances:
        times[each.name].append(float("inf") if each.recovered is None else each.recovered)
    lines += [f"  {name:<42}{len(took):>6}{max(took):>28.1f}" for name, took in sorted(times.items())]
    lines += ["", f"  {'invariant':<42}{'broken':>6}"]
    for name, broken in report.broken.items():
        lines.append(f"  {name:<42}{len(broken):>6}")
        lines += [f"      {line}" for line in broken[:10]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.chaos", description="Break the platform, and see that it keeps its word."
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults, in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--store", choices=("firestore", "sqlite", "both"), default="both")
    parser.add_argument("--bug", default="", help="let every process have this bug of tests/chaos/bugs.py")
    parser.add_argument("--act", action="append", default=[], help="only this fault; may be repeated")
    parser.add_argument("--patient", action="store_true", help="longer time-outs, for a machine that is busy otherwise")
    parser.add_argument("--logs", type=Path, help="a folder, not there yet, in which logs stay")
    chosen = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if chosen.seed is None else chosen.seed
    sys.stdout.write(f"seed {seed} (SEED={seed} repeats the order of the faults)\n")
    stores: list[tuple[Store, float]] = [("firestore", 0.75), ("sqlite", 0.25)]
    if chosen.store != "both":
        stores = [(chosen.store, 1.0)]
    kept = True
    for store, share in stores:
        with tempfile.TemporaryDirectory(prefix="bas-") as temporary:
            folder = Path(temporary)
            if chosen.logs is not None:
                folder = chosen.logs / store
                folder.mkdir(parents=True)
            plan = _plan(seed, chosen.seconds * share, store, chosen.bug, chosen.act, patient=chosen.patient)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(run(plan, folder))
        sys.stdout.write(_summary(store, report) + "\n\n")
        sys.stdout.flush()
        kept = kept and report.kept
    sys.stdout.write(f"{'every promise was kept' if kept else 'PROMISES WERE BROKEN'}; seed {seed}\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
