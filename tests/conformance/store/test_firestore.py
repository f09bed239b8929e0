"""The suite over the Firestore store: the real client over a real socket, against the stand-in or what
FIRESTORE_EMULATOR_HOST names."""

import secrets

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.firestore import FirestoreStore
from chassis.store.port import DocumentStore, Schema
from tests.conformance.store.backend import SCHEMA, Backend, Conformance
from tests.conformance.store.commits import Commits
from tests.conformance.store.queries import Queries
from tests.conformance.store.values import Values
from tests.firestore_server import FirestoreServer
from tools.indexes import definition

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


class OverFirestore(Conformance):
    @pytest.fixture
    async def backend(self, monkeypatch: pytest.MonkeyPatch):
        server = FirestoreServer("test", "(default)", indexes=definition({"": SCHEMA}))
        await server.start()
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        async def opening(schema: Schema) -> DocumentStore:
            return await FirestoreStore.open(
                "test", "(default)", schema, clock=SystemClock(), budget=BUDGET, random_bytes=secrets.token_bytes
            )

        yield Backend(opening)
        await server.stop()


class TestCommits(OverFirestore, Commits):
    pass


class TestQueries(OverFirestore, Queries):
    pass


class TestValues(OverFirestore, Values):
    pass
