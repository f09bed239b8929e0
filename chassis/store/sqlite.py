"""The document store on one SQLite file: durable, ordered as Firestore orders, for one process on one machine."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from chassis.clock import Clock
from chassis.config import Store as Budget
from chassis.resilience.deadline import budget, within
from chassis.store.expiry import sweep_forever
from chassis.store.file import StoreFile, open_file
from chassis.store.pace import Pace
from chassis.store.planner import IndexPlan, Planner
from chassis.store.port import (
    Committed,
    Delete,
    Document,
    DocumentTooLarge,
    Key,
    Query,
    Schema,
    StoreTimeout,
    StoreUnavailable,
    Write,
)
from chassis.store.readers import NEAR_INSTRUCTIONS, Reader, ReaderPool, is_short
from chassis.store.transaction import CommitWork, Prepared, SweepWork, Transaction
from chassis.store.values import MAX_COMMIT, check_key, document, pack
from chassis.store.writer import GroupWriter

MAX_WRITES: Final = 500
MAX_KEYS: Final = 500
_READERS: Final = 3
_TOGETHER: Final = 64
_T = TypeVar("_T")


class SqliteStore:
    """A `DocumentStore`. Made by `open` on the event loop that uses it."""

    def __init__(
        self, file: StoreFile, readers: list[Reader], thread: ThreadPoolExecutor, *, clock: Clock, budget: Budget
    ) -> None:
        pace = Pace(clock)
        self._file = file
        self._pool = ReaderPool(readers[0], readers[1:], pace)
        self._thread = thread
        self._clock = clock
        self._budget = budget
        self._planner = Planner(file.indexes)
        self._writer = GroupWriter(Transaction(file.writer, file.indexes, clock), thread, pace)
        self._closing: asyncio.Task[None] | None = None
        self._expiry: asyncio.Task[None] | None = None
        if file.indexes.expiry:
            self._expiry = asyncio.create_task(sweep_forever(self.sweep_expired, clock), name="store-expiry")

    @classmethod
    async def open(cls, path: Path, schema: Schema, *, clock: Clock, budget: Budget) -> "SqliteStore":
        """Open or make the file and bring its indexes to the schema's, however long that takes.

        Raises StoreUnavailable (the folder cannot be written, another process has the file) or StoreCorrupt (damaged,
        not ours, or of a newer release); the message says which file and what to do, and nothing was overwritten.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        loop = asyncio.get_running_loop()
        try:
            file = await loop.run_in_executor(thread, open_file, path, schema)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        try:
            readers = [Reader(file.reader(), NEAR_INSTRUCTIONS), *(Reader(file.reader()) for _ in range(_READERS))]
        except StoreUnavailable:
            file.close()
            thread.shutdown(wait=False)
            raise
        return cls(file, readers, thread, clock=clock, budget=budget)

    async def get(self, key: Key) -> Document | None:
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        self._check_open()
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys are read at once")
        if len(keys) <= _TOGETHER:
            return await self._read(partial(_get_each, keys), short=True)
        found: list[Document | None] = []
        async with within(self._clock, self._budget.read_timeout, StoreTimeout):
            for first in range(0, len(keys), _TOGETHER):
                found += await self._read(partial(_get_each, keys[first : first + _TOGETHER]), short=True)
                await asyncio.sleep(0)  # many keys let others run in between
        return found

    async def query(self, query: Query) -> list[Document]:
        self._check_open()
        plan = self._planner.page(query)
        found = await self._read(lambda reader: reader.page(query, plan), short=is_short(query, plan))
        return [document(query.tenant, query.collection, stored) for stored in found]

    async def count(self, query: Query) -> int:
        self._check_open()
        plan = self._planner.count(query)
        short = not (isinstance(plan, IndexPlan) and plan.residual)
        return await self._read(lambda reader: reader.count(query, plan), short=short)

    async def _read(self, read: Callable[[Reader], _T], *, short: bool) -> _T:
        """On the loop, where nothing has to be timed, or on a thread within the budget."""
        if budget(self._clock, self._budget.read_timeout) <= 0:
            raise StoreTimeout
        near = self._pool.near(read) if short else None
        if near is not None:
            return near[0]
        async with within(self._clock, self._budget.read_timeout, StoreTimeout):
            return await self._pool.run(read)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        self._check_open()
        work = CommitWork(await self._prepared(writes))
        async with within(self._clock, self._budget.write_timeout, StoreTimeout):
            return await self._writer.run(work)

    async def sweep_expired(self, limit: int = 500) -> int:
        """Remove at most `limit` documents whose `ttl_fields` time has passed; returns how many. The store does so by
        itself, too (`expiry.py`)."""
        self._check_open()
        async with within(self._clock, self._budget.write_timeout, StoreTimeout):
            return await self._writer.run(SweepWork(self._file.indexes.expiry, limit))

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            await asyncio.wait((self._expiry,))
        await self._writer.close()
        await asyncio.to_thread(self._pool.close)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailable("The store is closed.")

    async def _prepared(self, writes: Sequence[Write]) -> list[Prepared]:
        if not 0 < len(writes) <= MAX_WRITES:
            raise ValueError(f"a commit has 1 to {MAX_WRITES} writes")
        if len({write.key for write in writes}) != len(writes):
            raise ValueError("a commit writes each key at most once")
        prepared, total = [], 0
        for number, write in enumerate(writes, 1):
            if number % _TOGETHER == 0:
                await asyncio.sleep(0)  # a large batch lets others run in between
            check_key(write.key)
            if isinstance(write, Delete):
                prepared.append(Prepared(write, "", ()))
                continue
            body, size = pack(write.key, write.fields)
            total += size
            prepared.append(Prepared(write, body, self._file.indexes.entries(write.key, write.fields)))
        if total > MAX_COMMIT:
            raise DocumentTooLarge("The commit is larger than 10 MiB.")
        return prepared


def _get_each(keys: Sequence[Key], reader: Reader) -> list[Document | None]:
    return [
        None if stored is None else document(key.tenant, key.collection, stored)
        for key, stored in ((key, reader.get(key.tenant, key.collection, key.id)) for key in keys)
    ]
