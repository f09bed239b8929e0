"""The suite over the Firestore store: the real client over a real socket, bare and measured.

The server is the stand-in with nothing but the indexes that the suite's schema declares, or, where FIRESTORE_EMULATOR_HOST
names one, that emulator, with a project of its own for each test.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_indexes import definition
from chassis.store.instrumented import InstrumentedStore
from chassis.store.port import DocumentStore, Schema
from chassis.telemetry.metrics import Metrics
from tests.conformance.store.backend import SCHEMA, Backend, Conformance
from tests.conformance.store.commits import Commits
from tests.conformance.store.model import AgainstModel
from tests.conformance.store.queries import Queries
from tests.conformance.store.values import Values
from tests.support.firestore_thread import serving_apart

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
EMULATOR = os.environ.get("FIRESTORE_EMULATOR_HOST")


@pytest.fixture
def server() -> Iterator[str]:
    """The stand-in's address. A part of the suite runs loops of its own, so the server has one, too."""
    with serving_apart(indexes=definition({"": SCHEMA})) as address:
        yield address


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
