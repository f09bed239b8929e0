"""The suite over the fault wrapper while it makes nothing worse than slow: what it adds is faults, and nothing else."""

from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.store.port import DocumentStore, Schema
from chassis.store.sqlite import SqliteStore
from tests.conformance.store.backend import Backend, Conformance
from tests.conformance.store.commits import Commits
from tests.conformance.store.queries import Queries
from tests.faults.fate import Chances, Fate
from tests.faults.store import FaultyStore
from tests.support import patience

SLOW = Chances(delay=0.5, longest=0.0005)


class OverFaults(Conformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        async def opening(schema: Schema) -> DocumentStore:
            inner = await SqliteStore.open(tmp_path / "s.db", schema, clock=SystemClock(), budget=patience.STORE)
            return FaultyStore(inner, Fate(1, SLOW), Fate(2, SLOW))

        return Backend(opening)


class TestCommits(OverFaults, Commits):
    pass


class TestQueries(OverFaults, Queries):
    pass
