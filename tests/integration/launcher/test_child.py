"""Real child processes, with a stand-in for `launcher.main` that a path in their environment puts before ours."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.child import Child
from tests.support.eventually import eventually

READY = "ready"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def child(tmp_path: Path) -> Callable[[str], Child]:
    """A child whose process runs `body` and then says that it is ready, by a file."""

    def make(body: str) -> Child:
        package = tmp_path / "launcher"
        package.mkdir()
        (package / "__init__.py").touch()
        main = textwrap.dedent(body) + f"\nopen({str(tmp_path / READY)!r}, 'w').close()\nwhile True: signal.pause()\n"
        (package / "main.py").write_text("import os, signal, sys\n" + main, encoding="utf-8")
        return Child("devices", {**os.environ, "PYTHONPATH": str(tmp_path)})

    return make


async def until_ready(tmp_path: Path) -> None:
    await eventually((tmp_path / READY).exists, "the child")


async def test_a_child_that_drains_is_given_the_time(child: Callable[[str], Child], tmp_path: Path) -> None:
    made = child("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))")
    await made.start()
    await until_ready(tmp_path)
    await made.stop(grace=20)
    assert await made.wait() == 0


async def test_a_child_that_ignores_the_request_is_ended(child: Callable[[str], Child], tmp_path: Path) -> None:
    made = child("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    await made.start()
    await until_ready(tmp_path)
    begun = time.monotonic()
    await made.stop(grace=0.2)
    assert await made.wait() == -signal.SIGKILL
    assert 0.2 <= time.monotonic() - begun < 20
    await made.stop(grace=0.2)


async def test_the_terminal_s_interrupt_does_not_reach_a_child(child: Callable[[str], Child], tmp_path: Path) -> None:
    made = child("")
    await made.start()
    await until_ready(tmp_path)
    assert made.pid is not None
    assert os.getpgid(made.pid) != os.getpgid(0)
    assert os.getsid(made.pid) != os.getsid(0)
    await made.stop(grace=20)


async def test_the_exit_code_is_told(child: Callable[[str], Child]) -> None:
    made = child("sys.exit(2)")
    await made.start()
    assert await made.wait() == 2


async def test_a_child_knows_when_its_supervisor_has_gone(tmp_path: Path) -> None:
    """The pipe closes with whoever holds its other end: here a shell that ends at once."""
    supervisor = f"""
        import asyncio, os
        from launcher.child import Child
        async def main():
            child = Child("devices", {{**os.environ, "PYTHONPATH": {str(tmp_path)!r}}})
            await child.start()
            while not os.path.exists({str(tmp_path / READY)!r}):
                await asyncio.sleep(0.01)
            print(child.pid, flush=True)
            os._exit(0)
        asyncio.run(main())
    """
    package = tmp_path / "launcher"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        f"open({str(tmp_path / READY)!r}, 'w').close()\nimport sys\nsys.stdin.buffer.read()\n", encoding="utf-8"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(supervisor)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    pid = int(out)
    await eventually(lambda: _gone(pid), "the end of the orphan")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
