"""The audit service over a real SQLite store, called as the chain calls it; any number of replicas of it on one store."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from chassis import context
from chassis.clock import Clock, FakeClock, SystemClock
from chassis.config import Audit, Config
from chassis.context import Call, Caller
from chassis.module import Parts, ServiceModule
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.audit.module import build
from services.audit.records import SCHEMA
from services.audit.servicer import AuditServicer
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.memory_cache import MemoryCache


class Store:
    """A store that can be made to do what stores do: `before` and `after` are called around each commit, and may raise,
    or wait."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.before: Callable[[Sequence[Write]], object] = _nothing
        self.after: Callable[[Sequence[Write]], object] = _nothing
        self.rewritten: Callable[[Sequence[Write]], Sequence[Write]] = list
        self.reads = 0

    async def get(self, key: Key) -> Document | None:
        self.reads += 1
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        self.reads += len(keys)
        return await self._inner.get_many(keys)

    async def query(self, query: Query) -> list[Document]:
        found = await self._inner.query(query)
        self.reads += max(1, len(found))
        return found

    async def count(self, query: Query) -> int:
        return await self._inner.count(query)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        await _done(self.before(writes))
        committed = await self._inner.commit(self.rewritten(writes))
        await _done(self.after(writes))
        return committed

    async def close(self) -> None:
        await self._inner.close()


def _nothing(_: Sequence[Write]) -> None:
    return None


async def _done(outcome: object) -> None:
    if asyncio.iscoroutine(outcome):
        await outcome


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of the service, as far as it can tell; its loops run where a test runs them."""

    api: AuditServicer
    module: ServiceModule
    store: Store
    cache: MemoryCache
    metrics: Metrics

    def loop(self, name: str) -> "asyncio.Task[None]":
        (background,) = (each for each in self.module.background if each.name == f"audit-{name}")
        return asyncio.ensure_future(_endless(background.run))

    def sample(self, name: str) -> float:
        samples = (sample for metric in self.metrics.registry.collect() for sample in metric.samples)
        return sum(each.value for each in samples if each.name == name)


async def _endless(run: Callable[[], object]) -> None:
    await _done(run())


def settings(**fields: object) -> Config:
    return Config(audit=Audit(**fields))  # type: ignore[arg-type]  # as a test names them


@contextmanager
def acting(tenant: str, subject: str = "tester", *, seconds: float | None = None) -> Iterator[None]:
    """Calls inside are that caller's, and have that time."""
    caller = Caller(tenant, subject, frozenset({"audit:read", "audit:write", "audit:admin"}), 4e9)
    deadline = None if seconds is None else SystemClock().monotonic() + seconds
    token = context.enter(Call("test", "r1", deadline, caller))
    try:
        yield
    finally:
        context.leave(token)


def secret(purpose: str) -> bytes:
    return hashlib.sha256(purpose.encode()).digest()


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "audit.db", SCHEMA, clock=SystemClock(), budget=patience.STORE)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def replica(documents: SqliteStore, clock: FakeClock) -> Callable[..., Replica]:
    """Makes one more replica, on the store of the test."""

    def make(config: Config | None = None, cache: MemoryCache | None = None, by: Clock | None = None) -> Replica:
        store, metrics, kept = Store(documents), Metrics(), cache or MemoryCache(clock)
        module = build(config or Config(), Parts(by or clock, store, kept, metrics, os.urandom, secret))
        assert isinstance(module.servicer, AuditServicer)
        return Replica(module.servicer, module, store, kept, metrics)

    return make


@pytest.fixture
def audit(replica: Callable[..., Replica]) -> Iterator[Replica]:
    """One replica, called as tenant `acme`, by a clock that stands still."""
    with acting("acme"):
        yield replica()


@asynccontextmanager
async def running(replica: Replica, *loops: str) -> AsyncIterator[None]:
    """The loops of that replica go on inside."""
    tasks = [replica.loop(name) for name in loops]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=30)


async def passes(clock: FakeClock, condition: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Time goes on until the condition holds."""

    async def later() -> bool:
        await clock.advance(0.25)
        met = condition()
        return met if isinstance(met, bool) else await met

    await eventually(later, what, every=0.001)


Make = Callable[..., Replica]
