"""What the event streams add to the memory of a gateway that nobody streams from.

`python -m bench.footprint` prints it, in bytes: everything that the gateway loads is loaded but for `gateway.sse`; then that,
and a hub is made.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from chassis.clock import SystemClock
from chassis.config import Config
from chassis.telemetry.metrics import Metrics

_OWN: Final = "gateway.sse"
_WIRING: Final = "gateway.module"
_TURNS: Final = 3


def footprint() -> float:
    """In MB, the median of a few processes."""
    found = []
    for _ in range(_TURNS):
        done = subprocess.run(
            [sys.executable, "-m", "bench.footprint"], check=True, capture_output=True, text=True, timeout=60
        )
        found.append(int(done.stdout) / 1e6)
    return sorted(found)[_TURNS // 2]


def _loaded() -> list[str]:
    """The modules of a gateway."""
    code = f"import sys, {_WIRING}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def _private() -> int:
    """Bytes that no other process has a part in."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


class _Nowhere:
    """An upstream that is not called."""

    def stream(self, path: str) -> Any:
        return path

    def unary(self, path: str, policy: object) -> Any:
        return path, policy


def main() -> None:
    for name in _loaded():
        if not name.startswith((_OWN, "__")) and name != _WIRING:
            try:
                import_module(name)
            except ImportError:  # a name that another package puts there, and no module
                continue
    metrics, settings = Metrics(), Config()
    before = _private()
    upstream: Any = _Nowhere()
    streams = import_module(f"{_OWN}.module").event_streams(
        settings,
        upstream=upstream,
        issue=str,
        clock=SystemClock(),
        metrics=metrics,
        random=lambda: 0.5,
        new_trace=str,
    )
    print(_private() - before)
    del streams


if __name__ == "__main__":
    main()
