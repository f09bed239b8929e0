"""The outbox over the Firestore store: the real client and the stand-in, with nothing but the outbox's indexes."""

import os
import secrets
from collections.abc import AsyncIterator

import pytest

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.records import SCHEMA
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_indexes import definition
from chassis.store.port import DocumentStore
from tests.conformance.outbox.backend import Conformance
from tests.conformance.outbox.relaying import Relaying
from tests.support.firestore_thread import serving_apart

BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


class OverFirestore(Conformance):
    @pytest.fixture
    async def store(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DocumentStore]:
        with serving_apart(indexes=definition({"": SCHEMA})) as address:
            emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
            monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator or address)
            project = f"test-{secrets.token_hex(6)}" if emulator else "test"
            store = await FirestoreStore.open(
                project, "(default)", SCHEMA, clock=SystemClock(), budget=BUDGET, random_bytes=secrets.token_bytes
            )
            yield store
            await store.close()


class TestRelaying(OverFirestore, Relaying):
    pass
