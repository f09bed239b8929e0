"""Time and outcome of every store operation, whichever engine answers it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write
from chassis.telemetry.metrics import Metrics

_T = TypeVar("_T")
_Observe = Callable[[float, str], None]


class InstrumentedStore:
    """A `DocumentStore` that records each operation under `store` with `ok`, the error's reason or `CANCELLED`."""

    def __init__(self, inner: DocumentStore, metrics: Metrics, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._get, self._get_many, self._query, self._count, self._commit = (
            metrics.operation("store", name) for name in ("get", "get_many", "query", "count", "commit")
        )

    @property
    def inner(self) -> DocumentStore:
        """The engine, for what the port does not have (`sweep_expired`)."""
        return self._inner

    async def get(self, key: Key) -> Document | None:
        return await self._timed(self._get, self._inner.get(key))

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self._timed(self._get_many, self._inner.get_many(keys))

    async def query(self, query: Query) -> list[Document]:
        return await self._timed(self._query, self._inner.query(query))

    async def count(self, query: Query) -> int:
        return await self._timed(self._count, self._inner.count(query))

    async def commit(self, writes: Sequence[Write]) -> Committed:
        return await self._timed(self._commit, self._inner.commit(writes))

    async def close(self) -> None:
        await self._inner.close()

    async def _timed(self, observe: _Observe, operation: Awaitable[_T]) -> _T:
        started = self._clock.monotonic()
        outcome = "INTERNAL"
        try:
            result = await operation
            outcome = "ok"
        except ApiError as failure:
            outcome = failure.reason
            raise
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            raise
        finally:
            observe(self._clock.monotonic() - started, outcome)
        return result
