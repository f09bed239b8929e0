"""A process is killed -9 between commit and delivery, between delivery and removal, and after a removal; others go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.records import SCHEMA, all_pending
from chassis.store.sqlite import SqliteStore
from tests.integration.outbox.dying import EACH, KEYS

ROOT = Path(__file__).resolve().parents[3]


def run(folder: Path, point: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.outbox.dying", str(folder), point],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
        check=False,
        timeout=120,
    )
    return done.returncode


async def test_nothing_is_lost_and_order_holds_wherever_a_process_is_killed(tmp_path: Path) -> None:
    for point in ("committed", "delivered", "removed"):
        assert run(tmp_path, point) == -signal.SIGKILL
    assert run(tmp_path, "none") == 0
    came = [line.split() for line in (tmp_path / "delivered").read_text(encoding="utf-8").splitlines()]
    for key in range(KEYS):
        first = list(dict.fromkeys(name for held, name in came if held == f"k{key}"))
        assert first == [f"{key}-{number}" for number in range(EACH)]
    assert len(came) > KEYS * EACH, "what was delivered and not removed comes again"
    budget = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
    store = await SqliteStore.open(tmp_path / "store.db", SCHEMA, clock=SystemClock(), budget=budget)
    assert await store.count(all_pending()) == 0
    await store.close()
