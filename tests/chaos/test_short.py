"""A few faults of `make chaos`, always the same: what must hold on any machine, however busy, holds."""

import tempfile
from pathlib import Path

from tests.chaos.checks import Bounds
from tests.chaos.run import Plan, run
from tests.chaos.world import FLOOD_BURST, FLOOD_RATE, FLOODED, PATIENT, Shape

SETTINGS = {**PATIENT, "BAS_BREAKER_HALF_OPEN_AFTER": "1s", "BAS_OUTBOX_LONGEST_WAIT": "1s"}
BOUNDS = Bounds(
    stale=15.0, half_open_after=0.0, flooding=FLOODED, rate=FLOOD_RATE, burst=FLOOD_BURST, buckets=2, floor=12
)
PLAN = Plan(
    seed=6,
    seconds=60.0,
    shape=Shape("firestore", devices=2, sessions=1, settings=SETTINGS),
    bounds=BOUNDS,
    acts=("cache partitioned", "process killed", "store loses answers", "log killed", "cache restarted empty"),
    tenants=2,
    devices=3,
    readers=4,
    timeout=15.0,
    scale=0.3,
    recovery=0,
    settle=180.0,
    strict=False,
)


async def test_every_promise_is_kept_under_a_few_faults() -> None:
    with tempfile.TemporaryDirectory(prefix="bas-") as folder:
        report = await run(PLAN, Path(folder))
    assert report.broken == {name: [] for name in report.broken}
