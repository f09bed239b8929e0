"""Real processes on one database, stopped, continued and killed while they sequence: the log is one and whole."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from bas.audit.v2.audit_service_pb2 import AppendEntryRequest, BatchAppendEntriesRequest, GetCheckpointRequest
from bas.audit.v2.audit_service_pb2_grpc import AuditServiceStub
from chassis.auth import keys, tokens
from chassis.auth.tokens import Grant
from chassis.clock import SystemClock
from chassis.config import Auth
from tests.integration.audit.calls import DURABLE, INTEGRATED, SEQUENCED, entry
from tests.integration.audit.history import check
from tests.integration.audit.process import open_store
from tests.support import patience
from tests.support.stores import EMULATOR, ROOT, is_stand_in, stand_in

TENANT = "acme"
ROUNDS = 14


class Process:
    """One process of the service, and a stub of it."""

    def __init__(self, folder: Path) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.audit.process", str(folder)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.port = ""

    def listening(self) -> None:
        assert self._running.stdout is not None
        ready, _, _ = select.select([self._running.stdout], [], [], 90)
        self.port = self._running.stdout.readline().decode().strip() if ready else ""
        assert self.port, "the process did not start"

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def kill(self) -> None:
        self._running.kill()
        self._running.wait(30)
        assert self._running.stdout is not None
        self._running.stdout.close()


@contextmanager
def processes(folder: Path, count: int) -> Iterator[list[Process]]:
    made = [Process(folder) for _ in range(count)]
    try:
        for each in made:
            each.listening()
        yield made
    finally:
        for each in made:
            each.kill()


@pytest.mark.skipif(not is_stand_in(), reason="the documents of an earlier run would be in the log")
async def test_processes_that_are_stopped_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = keys.load_or_create(tmp_path / "keys.json", os.urandom)
    token = tokens.mint(held, Auth(), Grant(TENANT, "me", ("audit:write", "audit:read")), SystemClock().now())
    metadata = (("authorization", f"Bearer {token}"),)
    acknowledged: dict[str, str] = {}
    seen: list[tuple[int, bytes]] = []
    with stand_in() as address:
        monkeypatch.setenv(EMULATOR, address)
        # The first is killed in the middle, and the third takes its place.
        with processes(tmp_path, 3) as (one, two, three):
            stubs: list[Any] = []
            channels = [grpc.aio.insecure_channel(f"127.0.0.1:{each.port}") for each in (one, two, three)]
            stubs += map(AuditServiceStub, channels)
            living = [0, 1]

            async def appender(name: int) -> None:
                random = Random(name)
                for number in range(ROUNDS):
                    request = BatchAppendEntriesRequest(
                        entries=[entry(f"{name}.{number}.{each}") for each in range(random.choice([1, 2, 15]))],
                        acknowledgement=random.choice([DURABLE, DURABLE, SEQUENCED]),
                    )
                    for _ in range(200):
                        stub = stubs[random.choice(living)]
                        try:
                            answer = await stub.BatchAppendEntries(request, metadata=metadata, timeout=5)
                            shown = await stub.GetCheckpoint(GetCheckpointRequest(), metadata=metadata, timeout=5)
                            seen.append((shown.tree_size, shown.root_hash))
                        except grpc.aio.AioRpcError as failure:
                            if failure.code() is not grpc.StatusCode.NOT_FOUND:
                                continue
                        acknowledged.update({each.appended.entry.entry_id: "" for each in answer.results})
                        break

            working = asyncio.gather(*(appender(name) for name in range(4)))
            for step in range(6):
                stopped = (one, two)[step % 2]
                stopped.signal(signal.SIGSTOP)
                await asyncio.sleep(0.15)
                stopped.signal(signal.SIGCONT)
                await asyncio.sleep(0.05)
            living[0] = 2
            one.signal(signal.SIGKILL)
            async with asyncio.timeout(300):
                await working
            last = AppendEntryRequest(entry=entry("last"), acknowledgement=INTEGRATED)
            proven = await stubs[1].AppendEntry(last, metadata=metadata, timeout=patience.CALL)
            assert proven.inclusion_proof.tree_size > len(acknowledged) > 50
            for channel in channels:
                await channel.close()
        store = await open_store()
        assert await check(store, TENANT, acknowledged, seen) > len(acknowledged)
        await store.close()
