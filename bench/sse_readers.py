"""Many readers of one event stream, in processes of their own: raw sockets that count events and take their times.

`Readers` starts the processes and talks to them in lines of JSON; `python -m bench.sse_readers` is one of them. An event
to be counted has one `~` in it and nowhere another, and behind it the time of its publication (`stamp`), by the clock that
all processes of a machine share. How many came is told at every turn in a file that all have mapped, without a question.
"""

import asyncio
import json
import mmap
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_DIGITS: Final = 16
_BUCKETS: Final = 200_000
"""Latencies are counted by tenths of a millisecond."""
_CHUNK: Final = 1 << 18
_TURN: Final = 0.2
_PACE: Final = 50
"""Connections opened before those that are there are read again."""
_WITHIN: Final = 30.0
_STALLED_WINDOW: Final = 4096


def stamp(size: int) -> str:
    """A text of `size` characters that says when it was made, for `data`."""
    return f"~{time.monotonic_ns() // 1000:0{_DIGITS}d}".ljust(size, "x")


@dataclass
class Window:
    """What came between `begin` and `end`. `reads` counts the pieces it came in; `silence` is the longest that a
    connection had nothing, in seconds; latencies are in tenths of a millisecond, and how many had each."""

    events: int = 0
    reads: int = 0
    silence: float = 0.0
    cpu: float = 0.0
    lost: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Milliseconds; NaN when no time was taken."""
        left = share * self.latencies.total()
        for tenths in sorted(self.latencies):
            left -= self.latencies[tenths]
            if left <= 0:
                return tenths / 10
        return float("nan")


class Readers:
    """`processes` of them, for `path` of the server at `port`."""

    def __init__(self, folder: Path, port: int, path: str, token: str, processes: int = 2) -> None:
        self._counts = folder / f"counts-{port}-{time.monotonic_ns()}"
        self._counts.write_bytes(bytes(8 * processes))
        with self._counts.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._asked = [str(port), path, token, str(self._counts)]
        self._amount = processes
        self._processes: list[subprocess.Popen[bytes]] = []

    def _start(self) -> None:
        for number in range(self._amount):
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "bench.sse_readers", *self._asked, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": _ROOT},
                )
            )

    @property
    def events(self) -> int:
        """How many came so far, to all together."""
        return sum(struct.unpack(f"{self._amount}Q", self._map[:]))

    async def connect(self, count: int, *, stalled: bool = False) -> None:
        """So many more connections, spread over the processes; returns when every one has the head of its answer. Those
        that are stalled are never read. Raises RuntimeError when one is refused."""
        if not self._processes:
            self._start()
        least, more = divmod(count, self._amount)
        shares = [least + (number < more) for number in range(self._amount)]
        await self._ask({"stall" if stalled else "connect": share} for share in shares)

    async def begin(self) -> None:
        await self._ask({"begin": 1} for _ in self._processes)

    async def end(self) -> Window:
        """What came since `begin`, to all of them."""
        found = Window()
        for answer in await self._ask({"end": 1} for _ in self._processes):
            found.events += answer["events"]
            found.reads += answer["reads"]
            found.lost += answer["lost"]
            found.cpu += answer["cpu"]
            found.silence = max(found.silence, answer["silence"])
            found.latencies.update({int(tenths): count for tenths, count in answer["latencies"].items()})
        return found

    async def stop(self) -> None:
        """Again is harmless."""
        for process in self._processes:
            process.kill()
            await asyncio.to_thread(process.communicate)
        self._processes.clear()

    async def _ask(self, commands: Iterable[dict[str, int]]) -> list[dict[str, Any]]:
        async def one(process: "subprocess.Popen[bytes]", command: dict[str, int]) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
            async with asyncio.timeout(2 * _WITHIN):
                line = await asyncio.to_thread(process.stdout.readline)
            answer: dict[str, Any] = json.loads(line or b'{"problem": "ended"}')
            if "problem" in answer:
                raise RuntimeError(f"a process of readers: {answer['problem']}")
            return answer

        return await asyncio.gather(*map(one, self._processes, commands))


class _Process:
    """The sockets of one process."""

    def __init__(self, port: int, path: str, token: str, counts: Path, number: int) -> None:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        self._request, self._address = head.encode(), ("127.0.0.1", port)
        with counts.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._at = 8 * number
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._opening: set[int] = set()
        self._heard: dict[int, float] = {}
        self._stalled: list[socket.socket] = []
        self._total = 0
        self._window = Window()
        self._begun = (0, 0.0)
        self._poll.register(0, select.EPOLLIN)

    def run(self) -> None:
        while self._turn(_TURN):
            pass

    def _turn(self, wait: float) -> bool:
        """Read what came; False when there is nobody any more to tell."""
        asked = False
        for number, _ in self._poll.poll(wait):
            if number == 0:
                asked = True
            else:
                self._read(number)
        struct.pack_into("Q", self._map, self._at, self._total)
        # One question at a time, and the next only after the answer: there is never a second line in the buffer.
        return not asked or self._answer(sys.stdin.buffer.readline())

    def _read(self, number: int) -> None:
        try:
            data = os.read(number, _CHUNK)
        except OSError:
            data = b""
        if not data:
            self._lose(number)
            return
        if number in self._opening:
            self._open(number, data)
        now, window = time.monotonic(), self._window
        silence, self._heard[number] = now - self._heard.get(number, now), now
        window.silence = max(window.silence, silence)
        window.reads += 1
        amount = data.count(b"~")
        if not amount:
            return
        self._total += amount
        # Of several at once that of the oldest; none where the piece ends within it.
        first = data.find(b"~") + 1
        if first + _DIGITS <= len(data):
            late = now - int(data[first : first + _DIGITS]) / 1e6
            window.latencies[min(_BUCKETS, int(late * 10_000))] += 1

    def _answer(self, line: bytes) -> bool:
        """False when nobody asks any more."""
        if not line:
            return False
        try:
            answer = self._obey(json.loads(line))
        except (OSError, RuntimeError) as problem:
            answer = {"problem": str(problem)}
        print(json.dumps(answer), flush=True)
        return True

    def _obey(self, command: dict[str, int]) -> dict[str, Any]:
        if "connect" in command:
            self._connect(command["connect"])
        elif "stall" in command:
            for _ in range(command["stall"]):
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_WINDOW)
                sock.connect(self._address)
                sock.sendall(self._request)
                self._stalled.append(sock)
        elif "begin" in command:
            self._window = Window()
            self._begun = self._total, time.process_time()
            self._heard = dict.fromkeys(self._sockets, time.monotonic())
        elif "end" in command:
            window = self._window
            now = time.monotonic()
            quiet = max((now - heard for heard in self._heard.values()), default=0.0)
            return {
                "events": self._total - self._begun[0],
                "reads": window.reads,
                "silence": max(window.silence, quiet),
                "cpu": time.process_time() - self._begun[1],
                "lost": window.lost,
                "latencies": window.latencies,
            }
        return {}

    def _connect(self, count: int) -> None:
        for number in range(count):
            sock = socket.create_connection(self._address)
            sock.sendall(self._request)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._opening.add(sock.fileno())
            self._poll.register(sock.fileno(), select.EPOLLIN)
            if number % _PACE == _PACE - 1:
                self._turn(0.0)
        end = time.monotonic() + _WITHIN
        while self._opening:
            if time.monotonic() > end:
                raise RuntimeError(f"{len(self._opening)} of {count} connections had no answer")
            self._turn(_TURN)

    def _open(self, number: int, data: bytes) -> None:
        self._opening.discard(number)
        if not data.startswith(b"HTTP/1.1 200") or b"event: end" in data:
            raise RuntimeError(f"a connection was refused: {data[:300]!r}")

    def _lose(self, number: int) -> None:
        self._window.lost += 1
        self._opening.discard(number)
        self._heard.pop(number, None)
        self._poll.unregister(number)
        self._sockets.pop(number).close()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port, path, token, counts, number = sys.argv[1:]
    _Process(int(port), path, token, Path(counts), int(number)).run()


if __name__ == "__main__":
    main()
