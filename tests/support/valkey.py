"""Real Valkey servers for tests: one shared by a test process, or one of the test's own to stall, kill and restart."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from launcher.valkey import EmbeddedValkey, Persistence

START_BOUND = 60.0


class Valkey:
    """A running server and the things that may happen to it."""

    def __init__(self, folder: Path, persistence: Persistence = "off") -> None:
        self.folder = folder
        self._server = EmbeddedValkey(folder, persistence=persistence)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        pid = self._server.pid
        assert pid is not None, "not started"
        return pid

    async def start(self) -> None:
        await self._server.start(within=START_BOUND)

    async def stop(self) -> None:
        await self._server.stop()

    async def restart(self) -> None:
        """End it, if it still runs, and start it on the same address; empty, unless it has persistence."""
        await self._server.stop()
        await self.start()

    async def kill(self) -> None:
        """SIGKILL: it is gone without a word."""
        os.kill(self.pid, signal.SIGKILL)
        await self._server.wait()

    def pause(self) -> None:
        """SIGSTOP: it stalls, and the kernel still takes connections and bytes for it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> Any:
        """One blocking command on a connection of its own: to arrange, and to look behind the scenes."""
        with redis.Redis.from_url(self.url, socket_timeout=60.0) as client:
            return client.execute_command(*words)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """One server a test process; its content is anybody's: use `valkey`."""
    # In a thread with loops of its own, for a test may be running one already when it first asks for this; one thread
    # for all the time, because the server ends when the thread that started it does.
    with _folder() as folder, ThreadPoolExecutor(1) as thread:
        server = Valkey(folder)
        thread.submit(asyncio.run, server.start()).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, server.stop()).result()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The shared server, empty and without loaded scripts."""
    valkey_server.command("FLUSHALL")
    valkey_server.command("SCRIPT", "FLUSH")
    return valkey_server


@pytest.fixture
async def own_valkey() -> AsyncIterator[Valkey]:
    """A server of this test alone, without persistence, which it may pause, kill and restart."""
    async with new_valkey() as server:
        yield server


@asynccontextmanager
async def new_valkey(persistence: Persistence = "off") -> AsyncIterator[Valkey]:
    """A server of the caller's own, which it may pause, kill and restart."""
    with _folder() as folder:
        server = Valkey(folder, persistence)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Short, so that the socket path fits; pytest's tmp_path may be too long.
    path = Path(tempfile.mkdtemp(prefix="bas-valkey-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
