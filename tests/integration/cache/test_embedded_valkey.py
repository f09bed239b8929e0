"""The embedded server as a process: its address, its end, its lock, its persistence."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.valkey import EmbeddedValkey, ValkeyError
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_answers_on_a_private_socket(own_valkey: Valkey) -> None:
    assert own_valkey.url.startswith("unix:///")
    assert own_valkey.command("PING") is True
    assert (own_valkey.folder / "valkey.sock").stat().st_mode & 0o077 == 0
    assert own_valkey.command("CONFIG", "GET", "maxmemory-policy") == {b"maxmemory-policy": b"volatile-lru"}


async def test_too_long_a_path_falls_back_to_a_port_with_a_password(tmp_path: Path) -> None:
    server = Valkey(tmp_path / ("x" * 90))
    await server.start()
    try:
        assert server.url.startswith("redis://:")
        assert "@127.0.0.1:" in server.url
        assert server.command("PING") is True
        assert server.command("CONFIG", "GET", "requirepass")[b"requirepass"]
    finally:
        await server.stop()


async def test_a_folder_with_spaces_and_quotes(tmp_path: Path) -> None:
    with_quotes = tmp_path / 'a "b" %c'
    server = Valkey(with_quotes)
    await server.start()
    try:
        assert server.command("PING") is True
        assert (with_quotes / "valkey.log").exists()
    finally:
        await server.stop()


async def test_a_second_server_in_the_folder_is_refused(own_valkey: Valkey) -> None:
    with pytest.raises(ValkeyError, match="Another embedded Valkey"):
        await EmbeddedValkey(own_valkey.folder).start()
    assert own_valkey.command("PING") is True


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValkeyError, match="log"):
        await EmbeddedValkey(tmp_path, max_memory=-1).start()


async def test_wait_returns_on_death(own_valkey: Valkey) -> None:
    waiting = asyncio.create_task(own_valkey._server.wait())
    os.kill(own_valkey.pid, signal.SIGKILL)
    assert await asyncio.wait_for(waiting, 30) == -signal.SIGKILL


async def test_stop_ends_a_stalled_server(own_valkey: Valkey) -> None:
    own_valkey.pause()
    await own_valkey.stop()
    assert not _running(own_valkey.pid)


async def test_everysec_survives_a_stop_and_off_does_not(tmp_path: Path) -> None:
    for persistence, expected in (("everysec", b"v"), ("off", None)):
        server = Valkey(tmp_path / persistence, persistence)  # type: ignore[arg-type]  # the two literals
        await server.start()
        try:
            server.command("SET", "k", "v")
            await server.restart()
            assert server.command("GET", "k") == expected
        finally:
            await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, time\nfrom pathlib import Path\nfrom launcher.valkey import EmbeddedValkey\n"
        "s = EmbeddedValkey(Path(sys.argv[1]))\nasyncio.run(s.start())\nprint(s.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes a moment; reading from it does not block
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        server = int(await asyncio.to_thread(parent.stdout.readline))
        assert _running(server)
        parent.kill()
        await eventually(lambda: not _running(server), "the server ends with its parent")
