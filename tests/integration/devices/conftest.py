"""The devices service over each real store and a real Valkey, called as the chain calls it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chassis import context
from chassis.cache.client import open_cache
from chassis.clock import Clock, SystemClock
from chassis.config import Config
from chassis.context import Call, Caller
from chassis.module import Parts, ServiceModule
from chassis.outbox.port import NoOutbox, Outbox
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Update, Write
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.devices.filters import SCHEMA
from services.devices.module import build
from services.devices.servicer import DeviceServicer
from services.devices.sweep import Sweep
from tests.support import patience
from tests.support.firestore_store import stand_in_store
from tests.support.stores import STORES
from tests.support.valkey import Valkey, own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]


class CountingStore:
    """A store that counts what is written, and can be made to fail, to be careless, or to take its time: a commit sets
    `begun`, and waits for `disk`."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.commits = 0
        self.written: list[Key] = []
        self.failure: Exception | None = None
        self.ignore_versions = False
        self.begun = asyncio.Event()
        self.disk = asyncio.Event()
        self.disk.set()

    async def get(self, key: Key) -> Document | None:
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self._inner.get_many(keys)

    async def query(self, query: Query) -> list[Document]:
        return await self._inner.query(query)

    async def count(self, query: Query) -> int:
        return await self._inner.count(query)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        if self.failure is not None:
            raise self.failure
        self.begun.set()
        await self.disk.wait()
        if self.ignore_versions:
            writes = [replace(write, version=None) if isinstance(write, Update) else write for write in writes]
        committed = await self._inner.commit(writes)
        self.commits += 1
        self.written += [write.key for write in writes]
        return committed

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Devices:
    """One replica of the service and what it stands on."""

    api: DeviceServicer
    module: ServiceModule
    store: CountingStore
    metrics: Metrics

    def tenant(self, name: str) -> AbstractContextManager[None]:
        """Calls inside are that tenant's."""
        return acting(name)

    def cached(self, name: str) -> float:
        """How many reads the cache of that name has answered."""
        return self.sample("bas_cache_reads_total", cache=name, outcome="hit")

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, summed over the labels that are not given."""
        samples = (sample for metric in self.metrics.registry.collect() for sample in metric.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    @property
    def sweep(self) -> Sweep:
        """The sweep of this replica, to be run a round at a time."""
        (background,) = self.module.background
        sweep = getattr(background.run, "__self__", None)
        assert isinstance(sweep, Sweep)
        return sweep


@contextmanager
def acting(tenant: str) -> Iterator[None]:
    caller = Caller(tenant, "tester", frozenset({"devices:read", "devices:write"}), 4e9)
    token = context.enter(Call("test", "r1", 1e12, caller))  # no deadline on any clock
    try:
        yield
    finally:
        context.leave(token)


def secret(purpose: str) -> bytes:
    return hashlib.sha256(purpose.encode()).digest()


@asynccontextmanager
async def replica(
    store: CountingStore,
    server: Valkey,
    clock: Clock,
    config: Config | None = None,
    *,
    presence: Clock | None = None,
    op_timeout: float = 10.0,
    outbox: Outbox | None = None,
) -> AsyncIterator[Devices]:
    """One more process of the service, as far as it can tell."""
    cache = open_cache(patience.cache_at(server.url, op_timeout), Metrics(), clock=SystemClock())
    metrics = Metrics()
    parts = Parts(clock, store, cache, metrics, os.urandom, secret, outbox=outbox or NoOutbox())
    module = build(config or Config(), parts, presence_clock=presence)
    assert isinstance(module.servicer, DeviceServicer)
    try:
        yield Devices(module.servicer, module, store, metrics)
    finally:
        if module.close:
            await module.close()
        await cache.close()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CountingStore]:
    """A file, or Firestore: the stand-in in this loop, with the deployed indexes."""
    async with _file(tmp_path) if request.param == "sqlite" else stand_in_store() as opened:
        yield CountingStore(opened)


@asynccontextmanager
async def _file(folder: Path) -> AsyncIterator[DocumentStore]:
    opened = await SqliteStore.open(folder / "devices.db", SCHEMA, clock=SystemClock(), budget=patience.STORE)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def devices(store: CountingStore, valkey: Valkey) -> AsyncIterator[Devices]:
    """One replica on the shared Valkey, as tenant `acme`, with real clocks."""
    async with replica(store, valkey, SystemClock()) as made:
        with made.tenant("acme"):
            yield made
