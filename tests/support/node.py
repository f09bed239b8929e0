"""Clients in Node.js, and a real Chromium: they are there where somebody installed them, see tests/clients."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "clients"
_ANSWER = 60.0
_LIMIT = 1 << 22


def needs_node(package: str) -> None:
    """Skip where there is no Node.js, or not this package of tests/clients."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    if not (FOLDER / "node_modules" / package / "package.json").exists():
        pytest.skip("needs `npm ci` in tests/clients")


def chromium_path() -> str:
    """Where Chromium is; skip where it is not."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    return path


class Script:
    """A script of tests/clients that runs. `said` is what it printed, a JSON value a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[Any] = []
        self._reading = asyncio.create_task(self._read())
        self._more = asyncio.Event()

    async def ask(self, **command: Any) -> Any:
        """Send a line, and return the value of the answer. AssertionError for an error."""
        assert self._process.stdin is not None
        before = len(self.said)
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(_ANSWER):
            while len(self.said) == before:
                self._more.clear()
                await self._more.wait()
                assert not self._reading.done(), "the script ended"
        answer = self.said[before]
        assert "value" in answer, answer
        return answer["value"]

    async def close(self) -> None:
        """By the end of its input; what does not end by that is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(10.0):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.said.append(json.loads(line))
            self._more.set()
        self._more.set()


@asynccontextmanager
async def script(name: str, *arguments: str) -> AsyncIterator[Script]:
    """One of tests/clients, until the block ends."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / name), *arguments, stdin=pipe, stdout=pipe, limit=_LIMIT
    )
    running = Script(process)
    try:
        yield running
    finally:
        await running.close()
