"""The suite over the Firestore store: the real client over a real socket, bare, measured, and with a database that fails
the first attempt of every call.

The server is the stand-in with nothing but the indexes that the suite's schema declares; or, where FIRESTORE_EMULATOR_HOST
names one, that emulator, with a project of its own for each test; or the database of FIRESTORE_TEST_DATABASE
(`project/database`), which every test empties (`make test-firestore`).
"""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_indexes import definition
from chassis.store.port import DocumentStore, Schema
from tests.conformance.store.backend import SCHEMA, Backend, Conformance, wrapped
from tests.conformance.store.commits import Commits
from tests.conformance.store.model import AgainstModel
from tests.conformance.store.queries import Queries
from tests.conformance.store.values import Values
from tests.firestore_server import FirestoreServer, faults
from tests.support.firestore import empty
from tests.support.firestore_thread import serving_apart

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
EMULATOR = os.environ.get("FIRESTORE_EMULATOR_HOST")
PLACE = os.environ.get("FIRESTORE_TEST_DATABASE")


def stutter(server: FirestoreServer) -> None:
    """Every request fails when it comes for the first time: reads before or after their first answer, commits as aborted.

    (A commit that fails as UNAVAILABLE may have been applied, and its retry may then have to say that nobody can tell: the
    suite asks for definite answers. `tests/integration/store` holds those cases.)
    """
    met: set[bytes] = set()

    def first(request: Any) -> bool:
        raw = request.SerializeToString(deterministic=True)
        new = raw not in met
        met.add(raw)
        return new

    server.faults.add("Commit", faults.status(grpc.StatusCode.ABORTED), times=None, when=first)
    server.faults.add("RunAggregationQuery", faults.unavailable(), times=None, when=first)
    for rpc in ("BatchGetDocuments", "RunQuery"):
        server.faults.add(rpc, faults.broken_stream(1), times=None, when=first)


@pytest.fixture(params=["bare", "wrapped", "stuttering"])
def way(request: pytest.FixtureRequest) -> str:
    if (EMULATOR or PLACE) and request.param == "stuttering":
        pytest.skip("only the stand-in fails on demand")
    return str(request.param)


@pytest.fixture
def server(way: str) -> Iterator[str]:
    """The stand-in's address. A part of the suite runs loops of its own, so the server has one, too."""
    prepare = stutter if way == "stuttering" else lambda server: None
    with serving_apart(indexes=definition({"": SCHEMA}), prepare=prepare) as address:
        yield address


class OverFirestore(Conformance):
    @pytest.fixture
    def backend(self, server: str, way: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
        if not PLACE:
            monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", EMULATOR or server)
        own = f"test-{secrets.token_hex(6)}" if EMULATOR else "test"
        project, _, database = (PLACE or f"{own}/(default)").partition("/")
        full = [PLACE]

        async def opening(schema: Schema) -> DocumentStore:
            clock = SystemClock()
            store = await FirestoreStore.open(
                project, database, schema, clock=clock, budget=BUDGET, random_bytes=secrets.token_bytes
            )
            if full.pop() if full else None:
                await empty(project, database, "things", "things2", *SCHEMA.ttl_fields)
            return wrapped(store, clock) if way == "wrapped" else store

        return Backend(opening)


class TestCommits(OverFirestore, Commits):
    pass


class TestQueries(OverFirestore, Queries):
    pass


class TestValues(OverFirestore, Values):
    pass


class TestAgainstModel(OverFirestore, AgainstModel):
    pass
