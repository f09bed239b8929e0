"""The users service over a real SQLite store and a real Valkey, called as the chain calls it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chassis import context
from chassis.auth import keys
from chassis.auth.keys import KeySet
from chassis.cache.client import open_cache
from chassis.clock import Clock, SystemClock
from chassis.config import Config
from chassis.context import Call, Caller
from chassis.errors import ApiError
from chassis.module import Parts, ServiceModule
from chassis.outbox.port import NoOutbox, Outbox
from chassis.store.port import Committed, Create, Document, DocumentExists, DocumentStore, Key, Query, Write
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.users.filters import SCHEMA
from services.users.module import build
from services.users.records import CLAIMS
from services.users.servicer import UserServicer
from tests.support import patience
from tests.support.valkey import Valkey, own_valkey, valkey, valkey_server

__all__ = ["own_valkey", "valkey", "valkey_server"]


class CountingStore:
    """A store that counts what it is asked, and can be made to fail, to be careless, or to take its time: a commit sets
    `begun`, and waits for `disk`."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.commits = 0
        self.reads = 0
        self.failure: Exception | None = None
        self.begun = asyncio.Event()
        self.disk = asyncio.Event()
        self.disk.set()
        self.torn = False
        """Whether claims are looked at first and written afterwards, each in a commit of its own."""

    async def get(self, key: Key) -> Document | None:
        self.reads += 1
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        self.reads += 1
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
        if self.torn:
            return await self._torn_commit(writes)
        committed = await self._inner.commit(writes)
        self.commits += 1
        return committed

    async def _torn_commit(self, writes: Sequence[Write]) -> Committed:
        rest = [write for write in writes if write.key.collection != CLAIMS]
        claims = [write for write in writes if write.key.collection == CLAIMS]
        for claim in claims:
            if isinstance(claim, Create) and await self._inner.get(claim.key) is not None:
                raise DocumentExists(claim.key)
        committed = await self._inner.commit(rest)
        for claim in claims:
            with suppress(DocumentExists):
                await self._inner.commit([claim])
        return committed

    async def close(self) -> None:
        await self._inner.close()


@dataclass(slots=True)
class RecordingRevoker:
    """The SessionRevoker of tests: remembers whose sessions it was asked to end, and may be out of reach, or slow: it
    sets `begun`, and waits for `go`."""

    revoked: list[tuple[str, str]] = field(default_factory=list)
    failure: ApiError | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go.set()

    async def revoke(self, tenant: str, user_id: str) -> None:
        self.begun.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.revoked.append((tenant, user_id))


@dataclass(frozen=True, slots=True)
class Users:
    """One replica of the service and what it stands on."""

    api: UserServicer
    module: ServiceModule
    store: CountingStore
    metrics: Metrics
    sessions: RecordingRevoker

    def tenant(self, name: str) -> AbstractContextManager[None]:
        """Calls inside are that tenant's."""
        return acting(name)

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, summed over the labels that are not given."""
        samples = (sample for metric in self.metrics.registry.collect() for sample in metric.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


@contextmanager
def acting(tenant: str) -> Iterator[None]:
    caller = Caller(tenant, "tester", frozenset({"users:read", "users:write"}), 4e9)
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
    op_timeout: float = 10.0,
    outbox: Outbox | None = None,
) -> AsyncIterator[Users]:
    """One more process of the service, as far as it can tell."""
    cache = open_cache(patience.cache_at(server.url, op_timeout), Metrics(), clock=SystemClock())
    metrics, sessions = Metrics(), RecordingRevoker()
    parts = Parts(clock, store, cache, metrics, os.urandom, secret, outbox=outbox or NoOutbox())
    module = build(config or Config(), parts, sessions=sessions)
    assert isinstance(module.servicer, UserServicer)
    try:
        yield Users(module.servicer, module, store, metrics, sessions)
    finally:
        if module.close:
            await module.close()
        await cache.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    opened = await SqliteStore.open(tmp_path / "users.db", SCHEMA, clock=SystemClock(), budget=patience.STORE)
    try:
        yield CountingStore(opened)
    finally:
        await opened.close()


@pytest.fixture
def held(tmp_path: Path) -> KeySet:
    """The keys of the deployment."""
    return keys.load_or_create(tmp_path / "keys.json", os.urandom)


@pytest.fixture
async def users(store: CountingStore, valkey: Valkey) -> AsyncIterator[Users]:
    """One replica on the shared Valkey, as tenant `acme`, with real clocks."""
    async with replica(store, valkey, SystemClock()) as made:
        with made.tenant("acme"):
            yield made
