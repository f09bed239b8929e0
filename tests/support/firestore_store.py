"""The store of the devices service on the stand-in for Firestore, in this loop."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.clock import SystemClock
from chassis.store.firestore import FirestoreStore
from services.devices.filters import SCHEMA
from tests.firestore_server import FirestoreServer
from tests.support import patience
from tests.support.firestore import serving
from tests.support.stores import EMULATOR, ROOT

# Generous, as the machine of a test is busy: the budgets have tests of their own.
BUDGET = patience.STORE


@asynccontextmanager
async def deployed() -> AsyncIterator[FirestoreServer]:
    """A server of the project `test` with the indexes that are deployed and no others."""
    async with serving(indexes=ROOT / "firestore.indexes.json") as server:
        yield server


@asynccontextmanager
async def connected(server: FirestoreServer) -> AsyncIterator[FirestoreStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EMULATOR, server.address)
        store = await FirestoreStore.open(
            *(server.project, server.database, SCHEMA),
            clock=SystemClock(),
            budget=BUDGET,
            random_bytes=os.urandom,
            service="devices",
        )
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def stand_in_store() -> AsyncIterator[FirestoreStore]:
    async with deployed() as server, connected(server) as store:
        yield store
