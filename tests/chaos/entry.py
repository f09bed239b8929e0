"""`bas` for the chaos suite: the process under test, with a hand inside that does what no signal can.

    CHAOS_ORDERS=<file> python -m tests.chaos.entry serve devices

On SIGUSR1 it reads the file, JSON: `step`, seconds by which its wall clock is off from now on; `block`, seconds for which
its event loop stands still; `tasks`, a file to which the number of its asyncio tasks is written. CHAOS_BUG names a bug of
`tests/chaos/bugs.py` that it has: the suite must find it.
"""

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chassis.clock import SystemClock
from launcher.main import main as bas
from tests.chaos import bugs


class Hand:
    def __init__(self, orders: Path) -> None:
        self._orders = orders
        self._step = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._step

    def act(self, *_: object) -> None:
        try:
            orders: dict[str, Any] = json.loads(self._orders.read_text())
        except (OSError, ValueError):
            return
        self._step = timedelta(seconds=orders.get("step", 0.0))
        if orders.get("block"):
            time.sleep(orders["block"])
        if orders.get("tasks"):
            Path(orders["tasks"]).write_text(str(len(asyncio.all_tasks())))


def main() -> None:
    sys.stderr.write(json.dumps({"event": "chaos: started"}) + "\n")
    sys.stderr.flush()
    hand = Hand(Path(os.environ["CHAOS_ORDERS"]))
    SystemClock.now = lambda _: hand.now()  # type: ignore[method-assign, assignment]  # the process's only wall clock
    signal.signal(signal.SIGUSR1, hand.act)
    bugs.plant(os.environ.get("CHAOS_BUG", ""))
    bas()


if __name__ == "__main__":
    main()
