"""The suite over the Firestore store: the real client over a real socket, bare and measured.

The server is the stand-in with nothing but the indexes that the suite's schema declares, or, where FIRESTORE_EMULATOR_HOST
names one, that emulator, with a project of its own for each test.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Iterator

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.firestore import FirestoreStore
from chassis.store.instrumented import InstrumentedStore
from chassis.store.port import DocumentStore, Schema
from chassis.telemetry.metrics import Metrics
from tests.conformance.store.backend import SCHEMA, Backend, Conformance
from tests.conformance.store.commits import Commits
from tests.conformance.store.model import AgainstModel
from tests.conformance.store.queries import Queries
from tests.conformance.store.values import Values
from tests.firestore_server import FirestoreServer
from tools.indexes import definition

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
EMULATOR = os.environ.get("FIRESTORE_EMULATOR_HOST")


@pytest.fixture
def server() -> Iterator[str]:
    """The stand-in's address. It has a loop and a thread of its own: a part of the suite runs loops of its own, too."""
    started, ended = threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()
    addresses: list[str] = []

    async def serve() -> None:
        server = FirestoreServer("test", "(default)", indexes=definition({"": SCHEMA}))
        addresses.append(await server.start())
        started.set()
        await asyncio.to_thread(ended.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(10)
        yield addresses[0]
    finally:
        ended.set()
        thread.join(10)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class OverFirestore(Conformance):
    @pytest.fixture(params=["bare", "instrumented"])
    def backend(self, server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", EMULATOR or server)
        project = f"test-{secrets.token_hex(6)}" if EMULATOR else "test"

        async def opening(schema: Schema) -> DocumentStore:
            clock = SystemClock()
            store = await FirestoreStore.open(
                project, "(default)", schema, clock=clock, budget=BUDGET, random_bytes=secrets.token_bytes
            )
            return InstrumentedStore(store, Metrics(), clock) if request.param == "instrumented" else store

        return Backend(opening)


class TestCommits(OverFirestore, Commits):
    pass


class TestQueries(OverFirestore, Queries):
    pass


class TestValues(OverFirestore, Values):
    pass


class TestAgainstModel(OverFirestore, AgainstModel):
    pass
