"""From `bas up` to healthy, and from SIGTERM to gone, as a person at the keyboard meets them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.processes import ROOT
from bench.report import Report
from launcher.targets import SERVICES

_BOUND = 60.0


async def startup(report: Report, folder: Path) -> None:
    """Three starts and stops of the whole platform; the median of each."""
    starts, stops = [], []
    for turn in range(3):
        started, stopped = await asyncio.to_thread(_once, folder / f"up{turn}")
        starts.append(started)
        stops.append(stopped)
    report.below("bas up to healthy (median of 3)", sorted(starts)[1], 5.0, "s")
    report.below("SIGTERM to gone (median of 3)", sorted(stops)[1], 5.0, "s")


def _once(folder: Path) -> tuple[float, float]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BAS_")}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    environ |= {"BAS_DATA_DIR": str(folder), "BAS_GATEWAY_PORT": "0"}
    # Any free port, which takes a free one for the metrics with it.
    environ |= {f"BAS_{service.upper()}_PORT": "0" for service in SERVICES}
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "launcher.main", "up"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        # The banner is printed once everything is healthy; its first line is enough.
        first = process.stdout.readline()
        started = time.perf_counter() - begin
        begin = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_BOUND)
        if not first or process.returncode != 0:
            raise RuntimeError(f"`bas up` ended with {process.returncode}")
        return started, time.perf_counter() - begin
