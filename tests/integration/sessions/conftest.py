"""The sessions service over a real SQLite store and a real Valkey, called as the chain calls it."""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from chassis import context
from chassis.auth.tokens import expand
from chassis.cache.client import CacheClient, open_cache
from chassis.clock import Clock, SystemClock
from chassis.config import Config
from chassis.context import Call, Caller
from chassis.module import Parts, ServiceModule
from chassis.outbox.port import NoOutbox, Outbox
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.sessions.cleanup import Cleanup
from services.sessions.filters import SCHEMA
from services.sessions.module import build
from services.sessions.servicer import SessionServicer
from tests.support import patience
from tests.support.valkey import Valkey, own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]


class WatchedStore:
    """A store that counts what is written, and lets a test in before or after a commit."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.commits = 0
        self.reads = 0
        self.before: Callable[[Sequence[Write]], Awaitable[None]] | None = None
        self.after: Callable[[Sequence[Write]], Awaitable[None]] | None = None

    async def get(self, key: Key) -> Document | None:
        self.reads += 1
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self._inner.get_many(keys)

    async def query(self, query: Query) -> list[Document]:
        return await self._inner.query(query)

    async def count(self, query: Query) -> int:
        return await self._inner.count(query)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        if self.before is not None:
            await self.before(writes)
        committed = await self._inner.commit(writes)
        self.commits += 1
        if self.after is not None:
            await self.after(writes)
        return committed

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Sessions:
    """One replica of the service and what it stands on."""

    api: SessionServicer
    module: ServiceModule
    store: WatchedStore
    cache: CacheClient
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, summed over the labels that are not given."""
        samples = (sample for metric in self.metrics.registry.collect() for sample in metric.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    @property
    def hits(self) -> float:
        return self.sample("bas_cache_reads_total", cache="sess", outcome="hit")

    @property
    def cleanup(self) -> Cleanup:
        cleanup = getattr(self.module.background[0].run, "__self__", None)
        assert isinstance(cleanup, Cleanup)
        return cleanup

    async def touched(self) -> None:
        """Once the uses that are being written are written."""
        await self.api._authenticator._touches.settled()

    async def connected(self) -> None:
        """Once the cache has been reached."""
        await self.cache.get("x")


@contextmanager
def acting(tenant: str, *scopes: str) -> Iterator[None]:
    granted = expand(scopes or ("sessions:admin", "devices:admin", "users:admin"))
    caller = Caller(tenant, "tester", granted, 4e9)
    token = context.enter(Call("test", "r1", 1e12, caller))  # no deadline on any clock
    try:
        yield
    finally:
        context.leave(token)


def secret(purpose: str) -> bytes:
    return hashlib.sha256(purpose.encode()).digest()


@asynccontextmanager
async def replica(
    store: WatchedStore,
    url: str,
    clock: Clock,
    config: Config | None = None,
    *,
    op_timeout: float = 10.0,
    outbox: Outbox | None = None,
) -> AsyncIterator[Sessions]:
    """One more process of the service, as far as it can tell."""
    cache = open_cache(patience.cache_at(url, op_timeout), Metrics(), clock=SystemClock())
    metrics = Metrics()
    parts = Parts(clock, store, cache, metrics, os.urandom, secret, outbox=outbox or NoOutbox())
    module = build(config or Config(), parts)
    assert isinstance(module.servicer, SessionServicer)
    made = Sessions(module.servicer, module, store, cache, metrics)
    try:
        yield made
    finally:
        assert module.close is not None
        await module.close()
        await cache.close()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[WatchedStore]:
    inner = await SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=patience.STORE)
    try:
        yield WatchedStore(inner)
    finally:
        await inner.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    async with opened(tmp_path / "sessions.db") as made:
        yield made


@pytest.fixture
async def sessions(store: WatchedStore, valkey: Valkey) -> AsyncIterator[Sessions]:
    """One replica on the shared Valkey, as tenant `acme`, with real clocks."""
    async with replica(store, valkey.url, SystemClock()) as made:
        await made.connected()
        with acting("acme"):
            yield made
