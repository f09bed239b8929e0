"""The outbox over the SQLite store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.records import SCHEMA
from chassis.store.port import DocumentStore
from chassis.store.sqlite import SqliteStore
from tests.conformance.outbox.backend import Conformance
from tests.conformance.outbox.relaying import Relaying

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


class OverSqlite(Conformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DocumentStore]:
        store = await SqliteStore.open(tmp_path / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
        yield store
        await store.close()


class TestRelaying(OverSqlite, Relaying):
    pass
