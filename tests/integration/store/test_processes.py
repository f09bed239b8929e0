"""The store's file between processes: a disk that is really full, a second opener that is another process."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.store.port import Create, Key, Query, StoreUnavailable
from chassis.store.sqlite import SqliteStore
from tests.integration.store.committer import BUDGET, SCHEMA

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
"""Within a namespace of its own: the mount is gone when the process is."""


def on_a_small_disk(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with 1 MiB of disk at `folder`; skips where the system does not let us make one."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1) to make a small disk with")
    alone = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, str(folder)]
    tried = subprocess.run([*alone, "true"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        pytest.skip(f"this system does not let us mount a small disk: {tried.stderr.strip()}")
    return subprocess.run(
        [*alone, *command], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("size", [100, 3000, 30_000])
def test_a_full_disk_refuses_writes_and_keeps_what_was_acknowledged(tmp_path: Path, size: int) -> None:
    """Full (twice), with all there and nothing torn; after space was made it goes on, also when it is opened again."""
    done = on_a_small_disk(tmp_path, sys.executable, "-m", "tests.integration.store.filler", str(tmp_path), str(size))
    told = ["StoreFull", "kept", "whole", "StoreFull", "kept", "whole", "kept", "whole"]
    assert done.stdout.split() == told, done.stderr


def test_a_second_process_is_told_who_has_the_file_and_gets_it_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store.committer", str(path)],
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        first.stdout.readline()  # it has committed
        try:
            with pytest.raises(StoreUnavailable, match=f"in use by process {first.pid}:"):
                asyncio.run(opened(path))
            assert first.stdout.readline(), "the first was disturbed"
        finally:
            first.kill()
    asyncio.run(_goes_on(path))


async def _goes_on(path: Path) -> None:
    store = await opened(path)
    await store.commit([Create(Key("t", "batches", "ours"), {"batch": "ours"})])
    assert await store.count(Query("t", "batches")) > 1
    await store.close()


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=BUDGET)
