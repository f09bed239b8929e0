"""A whole platform through the real `bas up`: its own data folder, free ports, and the things that may happen to it."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.config import SETTINGS
from launcher.targets import SERVICES
from tests.support import patience
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
UP = "Ctrl-C stops it all."
START_BOUND = 90.0
STOP_BOUND = 60.0
ANY_PORTS = {"BAS_GATEWAY_PORT": "0"} | {f"BAS_{service.upper()}_PORT": "0" for service in SERVICES}
"""Every port is any that is free."""
UNLIMITED = {"BAS_LIMITS_RATE": "1000000", "BAS_LIMITS_BURST": "1000000", "BAS_SHED_ENABLED": "off"}
"""Nobody is refused for asking a lot, or because the machine is busy: that has tests of its own."""


class Platform:
    """One `bas up` at a time over one data folder; `start` again finds what the last one left."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._own = f"-{secrets.token_hex(4)}"
        self.data = folder / "data"
        self.settings = {"BAS_DATA_DIR": str(self.data), **ANY_PORTS, **UNLIMITED, **patience.PLATFORM, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: text for name, text in os.environ.items() if name not in SETTINGS}
        return {**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}", **self.settings}

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process

    @property
    def out(self) -> str:
        return (self.folder / f"out.{self._runs}").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self.folder / f"err.{self._runs}").read_text(encoding="utf-8", errors="replace")

    def spawn(self) -> None:
        """`bas up`, without waiting for anything."""
        self._runs += 1
        with (
            (self.folder / f"out.{self._runs}").open("wb") as out,
            (self.folder / f"err.{self._runs}").open("wb") as err,
        ):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "launcher.main", "up"],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    async def start(self) -> None:
        """`bas up` until its banner."""
        self.spawn()
        # `bas up` itself gives up before we do, and then says why.
        await eventually(lambda: UP in self.out or self.ended, "banner or end of `bas up`", within=START_BOUND)
        assert UP in self.out, f"exit code {self.process.returncode}:\n{self.err}"

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send `signum` and return the exit code."""
        if not self.ended:
            self.process.send_signal(signum)
        await eventually(lambda: self.ended, f"the end of `bas up`:\n{self.err}", within=STOP_BOUND)
        return self.process.wait()

    async def kill(self) -> None:
        """SIGKILL, and wait until what it had started has gone as well."""
        parts = self.parts()
        self.process.kill()
        self.process.wait()
        await eventually(lambda: not any(map(runs, parts.values())), "the end of all parts", within=STOP_BOUND)

    @property
    def gateway(self) -> str:
        """The gateway's URL."""
        return self._said(r"gateway\s+(http://\S+)")

    @property
    def devices(self) -> str:
        """host:port of the devices service."""
        return self._said(r"devices\s+grpc ([^,\s]+)")

    def _said(self, pattern: str) -> str:
        found = re.search(pattern, self.out)
        assert found, self.out
        return found[1]

    def parts(self) -> dict[str, int]:
        """Name → process id of everything that `bas up` runs."""
        found = {}
        for pid in _children(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
            except OSError:  # it ended meanwhile
                continue
            if "serve" in words:
                found[words[words.index("serve") + 2]] = pid
            elif "valkey" in words[0]:  # else it is one of ours between fork and exec
                found["valkey"] = pid
        return found

    def bas(self, *arguments: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
        """Another `bas` command, with the addresses of the running platform."""
        return subprocess.run(
            [sys.executable, "-m", "launcher.main", *arguments],
            env={**self.environ, **self.addresses(), **settings},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    async def healthy(self, *options: str, telling: str = "") -> str:
        """What `bas status` prints once it finds that all is well, and tells that: it asks each part for two seconds, which
        may be too few."""
        said = ""

        def well() -> bool:
            nonlocal said
            done = self.bas("status", *options)
            said = done.stdout
            return done.returncode == 0 and telling in said

        await eventually(well, f"`bas status` is content and tells {telling!r}")
        return said

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.bas("status", "--json").stdout)
        return answer

    def token(self, tenant: str = "acme", *more: str) -> str:
        """A credential for a tenant of this platform's own, as others may share its database."""
        done = self.bas("token", "--tenant", tenant + self._own, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def client(self, tenant: str = "acme") -> httpx.AsyncClient:
        """An HTTP client of the gateway as a caller of `tenant`."""
        headers = {"authorization": f"Bearer {self.token(tenant)}", **patience.HEADERS}
        return httpx.AsyncClient(base_url=self.gateway, headers=headers, timeout=patience.CLIENT)

    def addresses(self) -> Mapping[str, str]:
        """The settings by which other processes find those that run."""
        if self._process is None or UP not in self.out:
            return {}
        found = {"BAS_GATEWAY_PORT": self.gateway.rpartition(":")[2]}
        for service in SERVICES:
            found[f"BAS_{service.upper()}_PORT"] = self._said(rf"{service}\s+grpc \S+:(\d+),")
            found[f"BAS_{service.upper()}_METRICS_PORT"] = self._said(rf"{service}\s+grpc .*metrics http://\S+:(\d+)/")
        return found


@asynccontextmanager
async def new_platform(**settings: str) -> AsyncIterator[Platform]:
    """A platform that is not started yet, and of which nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bas-") as folder:  # short: a socket's path has 100 bytes
        platform = Platform(Path(folder), **settings)
        try:
            yield platform
        finally:
            if platform._process is not None:
                await platform.stop()


@pytest.fixture
async def fresh_platform() -> AsyncIterator[Platform]:
    """Not started: the test does it, and may break it. On a file: for what is about the launcher and its folder."""
    async with new_platform() as platform:
        yield platform


@pytest.fixture
async def any_platform(store_settings: Mapping[str, str]) -> AsyncIterator[Platform]:
    """Started, once on each store: for what callers are promised, whatever the platform stands on."""
    async with new_platform(**store_settings) as platform:
        await platform.start()
        yield platform


async def ready(address: str) -> None:
    """Once a gateway says that all it needs is ready."""
    async with httpx.AsyncClient(base_url=address) as client:

        async def well() -> bool:
            with suppress(httpx.TransportError):
                return (await client.get("/readyz")).status_code == 200
            return False

        await eventually(well, f"{address} is ready", within=120.0, every=0.1)


def runs(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(address: str) -> bool:
    """Whether somebody answers at host:port or a URL of it."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _children(pid: int) -> list[int]:
    try:
        return [
            int(word)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
    except OSError:
        return []
