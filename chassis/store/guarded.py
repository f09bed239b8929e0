"""The breaker of a document store, whichever engine is behind it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from chassis.clock import Clock
from chassis.config import Store as Budget
from chassis.errors import ApiError
from chassis.resilience.breaker import BreakerOpen, Guard
from chassis.resilience.lag import never_late
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, StoreTimeout, StoreUnavailable, Write

_T = TypeVar("_T")
_FAIR: Final = 0.25
"""Share of an operation's budget after which a store that has not answered is late, whoever set the deadline: callers
allow themselves less than the store may take, and some much less."""


class StoreBreakerOpen(BreakerOpen, StoreUnavailable):
    """The store was not asked."""


class GuardedStore:
    """A `DocumentStore` behind a breaker, whose refusals are `StoreBreakerOpen`. `late(moment)` says whether this
    process's event loop was held up after that time of the clock.

    A store that refuses a write's precondition, or the write, has not failed; one that is not there, or late, has.
    """

    def __init__(
        self,
        inner: DocumentStore,
        guard: Guard,
        budget: Budget,
        clock: Clock,
        late: Callable[[float], bool] = never_late,
    ) -> None:
        self._inner = inner
        self._admit = guard.admit
        self._read = budget.read_timeout * _FAIR
        self._write = budget.write_timeout * _FAIR
        self._now = clock.monotonic
        self._late = late

    @property
    def inner(self) -> DocumentStore:
        """The engine, for what the port does not have."""
        return self._inner

    async def get(self, key: Key) -> Document | None:
        return await self._guarded(lambda: self._inner.get(key), self._read)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self._guarded(lambda: self._inner.get_many(keys), self._read)

    async def query(self, query: Query) -> list[Document]:
        return await self._guarded(lambda: self._inner.query(query), self._read)

    async def count(self, query: Query) -> int:
        return await self._guarded(lambda: self._inner.count(query), self._read)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        return await self._guarded(lambda: self._inner.commit(writes), self._write)

    async def close(self) -> None:
        await self._inner.close()

    async def _guarded(self, operation: Callable[[], Awaitable[_T]], fair: float) -> _T:
        settle = self._admit()
        begun = self._now()
        answered: bool | None = None
        try:
            result = await operation()
            answered = True
        except StoreTimeout:
            answered = None if self._now() - begun < fair or self._late(begun) else False
            raise
        except ApiError as failure:
            answered = False if isinstance(failure, StoreUnavailable) else None
            raise
        finally:
            settle(answered)
        return result
