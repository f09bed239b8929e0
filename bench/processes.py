"""Servers under test as processes of their own, with the CPU they use."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Observed:
    """A process that somebody started. `cpu()` is its user and system time so far, in seconds; `resident()` the bytes of
    memory that it has."""

    name: str
    pid: int

    def cpu(self) -> float:
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        values = stat.rsplit(")", 1)[1].split()
        return (int(values[11]) + int(values[12])) / _TICKS

    def resident(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


@dataclass
class Server(Observed):
    """One of ours."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def last_words(self) -> str:
        """Of all who write to the same log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(name: str, module: str, *args: str, env: Mapping[str, str], log: Path) -> Server:
    """Start `python -m module args…`; its output goes to `log`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BAS_")}
    environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]), **env}
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", module, *args], env=environ, stdout=output, stderr=output)
    return Server(name, process.pid, process, log)


async def listening(port: int, server: Server, within: float = 40.0) -> None:
    """Return once `port` accepts connections. Raises RuntimeError when the process ended or time is up."""
    end = time.monotonic() + within
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if server.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{server.name} does not listen on {port}: {server.last_words()}") from None
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return
