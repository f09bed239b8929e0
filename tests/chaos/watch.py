"""What can be seen of the processes from beside them: their counters, their logs, and what they hold."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx

from tests.chaos.history import History, Look, Transition, Use
from tests.chaos.world import World
from tests.support.eventually import eventually

_SEEN: Final = (
    "bas_cache_invalidations_total",
    "bas_client_retries_total",
    "grpc_client_started_total",
    "bas_outbox_pending",
)


class Watch:
    """Looks at every process once in `every` seconds."""

    def __init__(self, world: World, history: History, every: float = 1.0) -> None:
        self._world = world
        self._history = history
        self._every = every

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=2.0) as client:
            while True:
                await asyncio.gather(*(self._look(client, name) for name in self._world.parts))
                await asyncio.sleep(self._every)

    async def _look(self, client: httpx.AsyncClient, name: str) -> None:
        part = self._world.parts[name]
        start = part.starts
        with suppress(httpx.HTTPError, OSError):
            answer = await client.get(f"http://127.0.0.1:{self._world.metrics_port(name)}/metrics")
            if answer.status_code == 200 and part.starts == start:
                look = Look(time.monotonic(), start, counters(answer.text))
                self._history.looks.setdefault(name, []).append(look)

    def read_logs(self) -> None:
        """Breakers' transitions, and how often each request came to a service."""
        attempts: Counter[str] = Counter()
        for name, part in self._world.parts.items():
            start = 0
            for line in part.log.read_text(errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                event = str(entry.get("event", ""))
                if event.startswith("breaker "):
                    at = datetime.fromisoformat(entry["timestamp"]).timestamp()
                    state = event.removeprefix("breaker ")
                    self._history.transitions.append(Transition(name, start, entry["dependency"], state, at))
                elif event == "chaos: started":
                    start += 1
                elif entry.get("request_id", "").startswith("chaos-") and event == "call":
                    attempts[f"{entry['request_id']} {entry.get('method', '')}"] += 1
        self._history.attempts = dict(attempts)

    async def holdings(self) -> dict[str, Use]:
        """Of each process that lives."""
        found = {}
        for name, part in self._world.parts.items():
            tasks = self._world.folder / f"{name}.tasks"
            tasks.unlink(missing_ok=True)
            part.order(tasks=str(tasks))
            with suppress(AssertionError):
                await eventually(lambda tasks=tasks: tasks.exists() and bool(tasks.read_text()), name, within=10)  # type: ignore[misc]
            with suppress(OSError, ValueError):
                found[name] = _use(part.pid or 0, int(tasks.read_text()))
        return found


def counters(text: str) -> dict[str, float]:
    """Those that are looked at, summed over all labels but `outcome`: `name.outcome`."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if not rest:
            name, _, _ = line.partition(" ")
        if name not in _SEEN:
            continue
        outcome = rest.partition('outcome="')[2].partition('"')[0]
        full = f"{name}.{outcome}" if outcome else name
        found[full] = found.get(full, 0.0) + float(line.rpartition(" ")[2])
    return found


def _use(pid: int, tasks: int) -> Use:
    status: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Use(files, int(status["Threads"]), int(status["VmRSS"].split()[0]), tasks)
