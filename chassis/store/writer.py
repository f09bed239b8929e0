"""Group commit: everything that waits when the disk becomes free goes into one transaction and one fsync.

The queue belongs to the event loop and the connection to one thread, so there is nothing to lock: a commit that has not
begun is withdrawn by cancelling its future, and a group costs one hop to the thread and one wake-up of the loop.
"""

import asyncio
import sqlite3
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

from chassis.store.faults import translated
from chassis.store.port import PreconditionFailed, StoreUnavailable
from chassis.store.transaction import Transaction, Work

MAX_QUEUE: Final = 4096
"""Commits that may wait; one more is refused, for it would only time out."""
MAX_GROUP: Final = 256

_T = TypeVar("_T")
_Pending = tuple[Work[Any], asyncio.Future[Any]]


class GroupWriter:
    """Runs work in write transactions, in the order in which it was handed in."""

    def __init__(self, transaction: Transaction, thread: ThreadPoolExecutor) -> None:
        self._transaction = transaction
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Pending] = deque()
        self._busy = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, work: Work[_T]) -> _T:
        """The work's result, once it is durable. Cancelled before it has begun, it never happens; afterwards it does.

        Raises StoreUnavailable when too many wait or the writer is closed.
        """
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if len(self._queue) >= MAX_QUEUE:
            raise StoreUnavailable("Too many commits wait for the store.")
        pending: _Pending = (work, self._loop.create_future())
        self._queue.append(pending)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._begin)
        try:
            return cast("_T", await pending[1])
        except asyncio.CancelledError:
            if pending in self._queue:
                self._queue.remove(pending)
            raise

    async def close(self) -> None:
        """Refuse new work and wait for what was accepted."""
        self._closed = True
        await self._idle.wait()

    def _begin(self) -> None:
        group: list[_Pending] = []
        while self._queue and len(group) < MAX_GROUP:
            pending = self._queue.popleft()
            if not pending[1].done():
                group.append(pending)
        if not group:
            self._busy = False
            self._idle.set()
            return
        running = self._thread.submit(self._apply, [work for work, _ in group])
        running.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._finish, group, done))

    def _finish(self, group: list[_Pending], done: "Future[list[Any]]") -> None:
        failure = done.exception()
        outcomes = [failure] * len(group) if failure else done.result()
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._begin()

    def _apply(self, group: list[Work[Any]]) -> list[Any]:
        """One outcome for each: a result or an error."""
        try:
            return self._together(group)
        except sqlite3.Error as failure:
            if len(group) == 1:
                return [translated(failure)]
        # Somebody's work does not fit. Each by itself, so that it fails for nobody else.
        return [self._apply([work])[0] for work in group]

    def _together(self, group: list[Work[Any]]) -> list[Any]:
        transaction = self._transaction
        outcomes: list[Any] = []
        try:
            transaction.begin()
            for work in group:
                try:
                    outcomes.append(work.apply(transaction))
                except PreconditionFailed as refused:
                    outcomes.append(refused)
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        return outcomes
