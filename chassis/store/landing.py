"""Work that is seen to its end once it has begun, whatever becomes of the caller who asked for it.

A commit that has begun cannot be called back. If its caller leaves, what was cached must still be invalidated, and only
when the commit has landed: before, a reader would fill the cache again with what is about to be replaced. What the cache
could not be told becomes a record in the outbox, where there is one, and is told when the cache is back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from chassis.cache.untold import collecting
from chassis.clock import Clock
from chassis.outbox.invalidations import Invalidations
from chassis.outbox.port import Outbox
from chassis.store.port import Committed, DocumentStore, PreconditionFailed, StoreTimeout, StoreUnavailable, Write

AGAIN: Final = 2.0
"""Seconds after which the invalidation of a commit with unknown outcome is repeated: by then it has mostly landed."""
MOST_AGAIN: Final = 1000
"""Repetitions that may wait; beyond, staleness is bounded by the TTL alone."""
_CLOSE: Final = 1.0

_T = TypeVar("_T")
Invalidate = Callable[[], Awaitable[object]]


class Landings:
    """The owner of such work. It ends by the deadline of the call that began it, as the store and the cache do."""

    def __init__(self, clock: Clock, outbox: Outbox | None = None) -> None:
        self._clock = clock
        self._later = None if outbox is None else Invalidations(outbox, clock)
        self._working: set[asyncio.Task[Any]] = set()
        self._again: set[asyncio.Task[None]] = set()

    async def land(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of `work`, which goes on when the caller is cancelled."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Work that nobody waits for."""
        task = asyncio.create_task(work, name="landing")
        self._working.add(task)
        task.add_done_callback(self._landed)
        return task

    async def commit(self, documents: DocumentStore, writes: Sequence[Write], invalidate: Invalidate) -> Committed:
        """Commit, then `invalidate()`, then answer: also when the outcome is not known, and then once more later.

        Raises what the commit raises. A precondition that did not hold changed nothing, and invalidates nothing.
        """
        return await self.land(self._commit(documents, writes, invalidate))

    async def close(self) -> None:
        """Give what is under way a second to land, and end the rest."""
        for task in self._again:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working, timeout=_CLOSE)
        for task in (left := self._working | self._again):
            task.cancel()
        if left:
            await asyncio.wait(left)
        if self._later is not None:
            await self._later.close()

    async def _commit(self, documents: DocumentStore, writes: Sequence[Write], invalidate: Invalidate) -> Committed:
        try:
            committed = await documents.commit(writes)
        except PreconditionFailed:
            raise
        except (StoreTimeout, StoreUnavailable):
            await self._told(documents, invalidate)
            self._repeat(documents, invalidate)
            raise
        except BaseException:
            await self._told(documents, invalidate)
            raise
        await self._told(documents, invalidate)
        return committed

    async def _told(self, documents: DocumentStore, invalidate: Invalidate) -> None:
        with collecting() as names:
            await invalidate()
        if names and self._later is not None:
            self._later.record(documents, names)

    def _repeat(self, documents: DocumentStore, invalidate: Invalidate) -> None:
        if len(self._again) >= MOST_AGAIN:
            return

        async def again() -> None:
            await self._clock.sleep(AGAIN)
            await self._told(documents, invalidate)

        task = asyncio.create_task(again(), name="landing-again")
        self._again.add(task)
        task.add_done_callback(self._repeated)

    def _landed(self, task: "asyncio.Task[Any]") -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left

    def _repeated(self, task: "asyncio.Task[None]") -> None:
        self._again.discard(task)
        if not task.cancelled():
            task.exception()  # the cache counts what it could not be told
