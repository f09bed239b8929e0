"""The suite over the SQLite store: bare, with all calls on threads, and measured behind a breaker."""

import math
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.port import DocumentStore, Schema
from chassis.store.sqlite import SqliteStore
from tests.conformance.store.backend import Backend, Conformance, wrapped
from tests.conformance.store.commits import Commits
from tests.conformance.store.model import AgainstModel
from tests.conformance.store.queries import Queries
from tests.conformance.store.values import Values

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


class OverSqlite(Conformance):
    @pytest.fixture(params=["bare", "threads", "wrapped"])
    def backend(self, tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
        async def opening(schema: Schema) -> DocumentStore:
            clock = SystemClock()
            store = await SqliteStore.open(tmp_path / "store.db", schema, clock=clock, budget=BUDGET)
            if request.param == "threads":
                # As on a slow disk: nothing runs on the event loop.
                store._pool._pace._again = math.inf
            return wrapped(store, clock) if request.param == "wrapped" else store

        return Backend(opening)


class TestCommits(OverSqlite, Commits):
    pass


class TestQueries(OverSqlite, Queries):
    pass


class TestValues(OverSqlite, Values):
    pass


class TestAgainstModel(OverSqlite, AgainstModel):
    pass
