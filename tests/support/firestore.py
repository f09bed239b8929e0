"""The stand-in for Firestore as fixtures: in this process, or as a process of its own.

Import the fixtures into the conftest that wants them: the client library takes a second to import.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.cloud.firestore import AsyncClient

from tests.firestore_server import Control, FirestoreServer

_ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def serving(project: str = "test", database: str = "(default)", **options: Any) -> AsyncIterator[FirestoreServer]:
    """A listening server in this loop; `options` are the constructor's."""
    server = FirestoreServer(project, database, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client_of(address: str, project: str = "test", database: str | None = None) -> AsyncIterator[AsyncClient]:
    """The real client library, connected as to an emulator; its channel is closed in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", address)
        client = AsyncClient(project=project, database=database)
    try:
        yield client
    finally:
        await client._firestore_api.transport.close()


async def empty(project: str, database: str, *collections: str) -> None:
    """Delete all documents of the collections, wherever they are in the database."""
    client = AsyncClient(project=project, database=database)
    try:
        for collection in collections:
            while found := [each async for each in client.collection_group(collection).limit(300).stream()]:
                batch = client.batch()
                for each in found:
                    batch.delete(each.reference)
                await batch.commit()
    finally:
        await client._firestore_api.transport.close()


@pytest.fixture
async def firestore_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreServer]:
    """A server of project `test`, database `(default)`, automatic indexes only; FIRESTORE_EMULATOR_HOST names it."""
    async with serving() as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        yield server


@pytest.fixture
async def firestore_client(firestore_server: FirestoreServer) -> AsyncIterator[AsyncClient]:
    async with client_of(firestore_server.address) as client:
        yield client


@dataclass(slots=True)
class FirestoreProcess:
    """A server in a process of its own. `control` reads its counts and sets its faults."""

    address: str
    control: Control
    process: asyncio.subprocess.Process
    counts_file: Path

    async def stop(self) -> dict[str, Any]:
        """Its last counts, as it wrote them."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await self.process.wait() == 0
        return dict(json.loads(self.counts_file.read_text()))


@asynccontextmanager
async def process_serving(folder: Path, *arguments: str) -> AsyncIterator[FirestoreProcess]:
    """`python -m tests.firestore_server` with `arguments`; killed at the end if it is still there."""
    counts_file = folder / "firestore-counts.json"
    command: Sequence[str] = (
        sys.executable,
        "-m",
        "tests.firestore_server",
        "--counts-file",
        str(counts_file),
        *arguments,
    )
    environment = os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'gen'}"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            address = (await process.stdout.readline()).decode().strip()
        control = Control(address)
        try:
            yield FirestoreProcess(address, control, process, counts_file)
        finally:
            await control.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def firestore_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreProcess]:
    """As `firestore_server`, in a process of its own, serving every query."""
    async with process_serving(tmp_path, "--any-query") as process:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", process.address)
        yield process
