"""One `bas serve` process under the supervisor, and what ties its life to the supervisor's.

The child's standard input is a pipe whose other end only the supervisor holds. However the supervisor ends, kill -9
included, the pipe closes and the child stops; no polling, no process group, the same on every POSIX system.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from launcher.supervisor import PartError

_KILL_WAIT: Final = 2.0
_ORPHAN_GRACE: Final = 5.0


class Child:
    """`bas serve <name>` with an environment of its own, in a session of its own: Ctrl-C at the terminal reaches the
    supervisor alone, which then stops its parts in order."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self._name = name
        self._environ = dict(environ)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        try:
            # -P: the folder that `bas up` was called in is no place to import from.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "launcher.main", "serve", "--supervised", self._name),
                env=self._environ,
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as problem:
            raise PartError(str(problem)) from None

    async def wait(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return await self._process.wait()

    async def stop(self, *, grace: float) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        for signum in (signal.SIGTERM, signal.SIGCONT):  # a stopped process hears SIGTERM only once it goes on
            with suppress(ProcessLookupError):
                process.send_signal(signum)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            async with asyncio.timeout(_KILL_WAIT):
                await process.wait()


def end_with_supervisor(
    pipe: int = 0,
    terminate: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    abandon: Callable[[], None] = lambda: os._exit(1),
    grace: float = _ORPHAN_GRACE,
) -> threading.Thread:
    """In a child: once the supervisor's end of `pipe` closes, drain as on SIGTERM; after `grace` seconds just end."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(pipe, 1024):
                pass
        terminate()
        overdue.wait(grace)
        abandon()

    overdue = threading.Event()
    thread = threading.Thread(target=watch, name="supervisor-watch", daemon=True)
    thread.start()
    return thread
