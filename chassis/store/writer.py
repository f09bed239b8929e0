"""Group commit: everything that waits when the disk becomes free goes into one transaction and one fsync.

Queue and transaction belong to one task of the event loop, so there is nothing to lock, and a commit that has not begun
is withdrawn by cancelling its future. The changes are made on the loop, a few at a time (`pace.py` says why, and when
not); the durable end of the transaction always runs on the writer's thread. A group costs one hop and one wake-up.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar, cast

from chassis.store.faults import translated
from chassis.store.pace import Pace
from chassis.store.port import PreconditionFailed, StoreUnavailable
from chassis.store.transaction import Transaction, Work

MAX_QUEUE: Final = 4096
"""Commits that may wait; one more is refused, for it would only time out."""
MAX_GROUP: Final = 256

_T = TypeVar("_T")
_Pending = tuple[Work[Any], asyncio.Future[Any]]


class GroupWriter:
    """Runs work in write transactions, in the order in which it was handed in."""

    def __init__(self, transaction: Transaction, thread: ThreadPoolExecutor, pace: Pace) -> None:
        self._transaction = transaction
        self._thread = thread
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Pending] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._serving = asyncio.create_task(self._serve(), name="store-writer")

    async def run(self, work: Work[_T]) -> _T:
        """The work's result, once it is durable. Cancelled before it has begun, it never happens; afterwards it may.

        Raises StoreUnavailable when too many wait or the writer is closed.
        """
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if len(self._queue) >= MAX_QUEUE:
            raise StoreUnavailable("Too many commits wait for the store.")
        pending: _Pending = (work, self._loop.create_future())
        self._queue.append(pending)
        self._arrived.set()
        try:
            return cast("_T", await pending[1])
        except asyncio.CancelledError:
            if pending in self._queue:
                self._queue.remove(pending)
            raise

    async def close(self) -> None:
        """Refuse new work, do what was accepted, and end the task."""
        self._closed = True
        self._arrived.set()
        await self._serving

    async def _serve(self) -> None:
        while self._queue or not self._closed:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_GROUP))]
            group = [pending for pending in group if not pending[1].done()]
            try:
                outcomes = await self._apply([work for work, _ in group])
            except Exception as bug:  # noqa: BLE001 - the task's outermost layer: a bug fails its group and no other
                outcomes = [bug] * len(group)
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _apply(self, group: list[Work[Any]]) -> list[Any]:
        """One outcome for each: a result or an error."""
        if not group:
            return []
        try:
            return await self._together(group)
        except sqlite3.Error as failure:
            if len(group) == 1:
                return [translated(failure)]
        # Somebody's work does not fit. Each by itself, so that it fails for nobody else.
        return [(await self._apply([work]))[0] for work in group]

    async def _together(self, group: list[Work[Any]]) -> list[Any]:
        transaction = self._transaction
        outcomes: list[Any] = []
        try:
            await self._call(transaction.begin)
            for work in group:
                try:
                    outcomes.append(await self._finish(work.steps(transaction)))
                except PreconditionFailed as refused:
                    outcomes.append(refused)
            await self._call(transaction.seal)
            await self._loop.run_in_executor(self._thread, transaction.commit)
        except BaseException:
            transaction.rollback()
            raise
        return outcomes

    async def _finish(self, steps: Generator[None, None, _T]) -> _T:
        while True:
            ended, result = await self._call(partial(_advance, steps))
            if ended:
                return cast("_T", result)
            await asyncio.sleep(0)  # a large batch lets others run between its steps

    async def _call(self, call: Callable[[], _T]) -> _T:
        if self._pace.quick():
            return self._pace.here(call)
        return await self._loop.run_in_executor(self._thread, call)


def _advance(steps: Generator[None, None, _T]) -> tuple[bool, _T | None]:
    """One step: (whether it was the last, the result). A StopIteration could not cross a future."""
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None
