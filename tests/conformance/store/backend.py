"""What a backend's test module gives the suite, and the schema that the suite's queries are declared in."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

import pytest

from chassis.clock import Clock
from chassis.config import Breaker as Budget
from chassis.config import Store
from chassis.resilience.breaker import Breaker
from chassis.store.guarded import GuardedStore, StoreBreakerOpen
from chassis.store.instrumented import InstrumentedStore
from chassis.store.port import (
    Create,
    DocumentStore,
    Fields,
    Filter,
    Index,
    Key,
    Op,
    Order,
    Query,
    Schema,
    Value,
)
from chassis.telemetry.metrics import Metrics

Opening: TypeAlias = Callable[[Schema], Coroutine[None, None, DocumentStore]]

SCHEMA = Schema(
    indexes=(
        Index("things", ("kind",)),
        Index("things", ("state",)),
        Index("things", ("kind",), (Order("rank"),)),
        Index("things", ("kind",), (Order("rank", descending=True),)),
        Index("things", ("state",), (Order("rank"),)),
        Index("things", ("state", "kind"), (Order("rank"), Order("born", descending=True))),
        Index("things", (), (Order("rank"),)),
        Index("things", (), (Order("rank", descending=True),)),
        Index("things", (), (Order("rank", descending=True), Order("born"))),
        Index("things", ("tags",), contains=frozenset({"tags"})),
        Index("things", ("tags",), (Order("rank"),), contains=frozenset({"tags"})),
    ),
    ttl_fields={"passing": "expires"},
)
MOMENT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class Backend:
    """`lacks` names what the backend cannot do, and why; the tests of it are skipped with that reason."""

    opening: Opening
    lacks: Mapping[str, str] = field(default_factory=dict)

    def needs(self, ability: str) -> None:
        if ability in self.lacks:
            pytest.skip(f"{ability}: {self.lacks[ability]}")


def wrapped(store: DocumentStore, clock: Clock) -> DocumentStore:
    """As a service has it."""
    guard = Breaker("store", Budget(), clock, refusal=StoreBreakerOpen)
    return InstrumentedStore(GuardedStore(store, guard, Store(), clock), Metrics(), clock)


class Conformance:
    """Base of the suite's classes; a backend overrides `backend`."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, backend: Backend) -> AsyncIterator[DocumentStore]:
        store = await backend.opening(SCHEMA)
        yield store
        await store.close()


def key(name: str, tenant: str = "acme", collection: str = "things") -> Key:
    return Key(tenant, collection, name)


async def fill(store: DocumentStore, documents: Mapping[str, Fields], tenant: str = "acme") -> None:
    await store.commit([Create(key(name, tenant), fields) for name, fields in documents.items()])


def things(*filters: Filter, order: Sequence[Order] = (), **more: object) -> Query:
    return Query("acme", "things", filters, tuple(order), **more)  # type: ignore[arg-type]  # after and limit


def eq(name: str, value: Value) -> Filter:
    return Filter(name, Op.EQ, value)


async def ids(store: DocumentStore, query: Query) -> list[str]:
    return [document.key.id for document in await store.query(query)]
