"""Reads: connections, the statements of a plan, and where they run.

Short reads run on the event loop, within a bound on SQLite's instructions; what passes the bound is begun again on a
thread, where it can be interrupted (`pace.py` says why). Python gives up its lock for each row that SQLite returns, so a
page is fetched as one row, the concatenated JSON of its documents, and is parsed at once.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from chassis.store.faults import translated
from chassis.store.filters import matches
from chassis.store.pace import Pace
from chassis.store.planner import IndexPlan, ScanPlan
from chassis.store.port import Query, StoreUnavailable
from chassis.store.values import parse

MAX_WAITING: Final = 4096
NEAR_INSTRUCTIONS: Final = 50_000
"""Of SQLite's virtual machine, for one statement on the event loop: about 2 ms. A page of 50 takes 3,000."""
_CHUNK: Final = 100
"""Documents a statement at most, so that one row of JSON stays below SQLite's limit of 1 GB."""
_T = TypeVar("_T")
Stored = list[Any]
"""[version, id, fields]"""


class Reader:
    """One read connection; used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, instructions: int | None = None) -> None:
        """A statement that needs more than `instructions` is interrupted."""
        self._connection = connection
        if instructions is not None:
            connection.set_progress_handler(lambda: 1, instructions)

    def get(self, tenant: str, collection: str, name: str) -> Stored | None:
        rows = self._connection.execute(
            "SELECT body FROM documents WHERE tenant=? AND collection=? AND id=?", (tenant, collection, name)
        ).fetchall()
        return parse(rows[0][0]) if rows else None

    def page(self, query: Query, plan: IndexPlan | ScanPlan) -> list[Stored]:
        """Up to `query.limit` documents of one snapshot."""
        if isinstance(plan, IndexPlan) and not plan.runs:
            return []
        if is_short(query, plan):
            return self._page(query, plan)
        with self._snapshot():
            return self._page(query, plan)

    def count(self, query: Query, plan: IndexPlan | ScanPlan) -> int:
        if isinstance(plan, ScanPlan):
            (found,) = self._one(
                "SELECT count(*) FROM documents WHERE tenant=? AND collection=?", [query.tenant, query.collection]
            )
            return int(found)
        if not plan.runs:
            return 0
        if plan.residual:
            with self._snapshot():
                return len(self._walk(query, plan, None))
        statement, bound = _entries("count(*) AS found", plan)
        (found,) = self._one(f"SELECT sum(found) FROM ({statement})", bound)  # noqa: S608 - see _entries
        return int(found)

    def interrupt(self) -> None:
        """End the statement in progress; may be called from any thread."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()

    def _page(self, query: Query, plan: IndexPlan | ScanPlan) -> list[Stored]:
        if isinstance(plan, ScanPlan):
            return self._scan(query, plan.after)
        return self._walk(query, plan, query.limit)

    def _scan(self, query: Query, after: str) -> list[Stored]:
        found: list[Stored] = []
        while len(found) < query.limit:
            wanted = min(_CHUNK, query.limit - len(found))
            (bodies,) = self._one(
                "SELECT group_concat(body) FROM (SELECT body FROM documents WHERE tenant=? AND collection=? AND id>?"
                " ORDER BY id LIMIT ?)",
                [query.tenant, query.collection, after, wanted],
            )
            chunk = parse(f"[{bodies or ''}]")
            found += chunk
            if len(chunk) < wanted:
                break  # that was all
            after = chunk[-1][1]
        return found

    def _walk(self, query: Query, plan: IndexPlan, limit: int | None) -> list[Stored]:
        found: list[Stored] = []
        while limit is None or len(found) < limit:
            left = _CHUNK if limit is None or plan.residual else min(_CHUNK, limit - len(found))
            chunk, last = self._chunk(query, plan, left)
            found += [stored for stored in chunk if all(matches(item, stored[2]) for item in plan.residual)]
            if len(chunk) < left:
                break
            plan = replace(plan, stop=last) if plan.backwards else replace(plan, start=last + b"\x00")
        return found if limit is None else found[:limit]

    def _chunk(self, query: Query, plan: IndexPlan, limit: int) -> tuple[list[Stored], bytes]:
        statement, bound = _entries("suffix, ref", plan, limit)
        end, down = ("min(suffix)", " DESC") if plan.backwards else ("max(suffix)", "")
        bodies, last = self._one(
            f"SELECT group_concat(body), {end} FROM (SELECT body, suffix FROM ({statement})"  # noqa: S608
            " CROSS JOIN documents"
            f" ON tenant=? AND collection=? AND id=ref ORDER BY suffix{down} LIMIT ?)",
            [*bound, query.tenant, query.collection, limit],
        )
        return parse(f"[{bodies or ''}]"), last or b""

    def _one(self, statement: str, bound: list[Any]) -> Any:
        return self._connection.execute(statement, bound).fetchall()[0]

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")


def is_short(query: Query, plan: IndexPlan | ScanPlan) -> bool:
    """Whether one statement answers the page."""
    return query.limit <= _CHUNK and not (isinstance(plan, IndexPlan) and plan.residual)


class ReaderPool:
    """One connection for the event loop, and a few on threads of their own, lent to one read at a time."""

    def __init__(self, near: Reader, readers: list[Reader], pace: Pace) -> None:
        self._near = near
        self._pace = pace
        self._threads = ThreadPoolExecutor(len(readers), thread_name_prefix="store-reader")
        self._free = readers
        self._readers = tuple(readers)
        self._waiting: deque[asyncio.Future[Reader]] = deque()

    def near(self, read: Callable[[Reader], _T]) -> tuple[_T] | None:
        """The result of a short read (one statement, or a few that each find one row) on the event loop, or None: it is
        for `run` then. Raises the port's errors."""
        if not self._pace.quick():
            return None
        try:
            return (self._pace.here(lambda: read(self._near)),)
        except sqlite3.Error as failure:
            if failure.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise translated(failure) from failure
            return None

    async def run(self, read: Callable[[Reader], _T]) -> _T:
        """`read`'s result from a thread; cancelled, the statement is interrupted. Raises the port's errors."""
        reader = await self._take()
        running = asyncio.get_running_loop().run_in_executor(self._threads, read, reader)
        running.add_done_callback(lambda done: self._give_back(reader, done))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            reader.interrupt()
            raise
        except sqlite3.Error as failure:
            raise translated(failure) from failure

    def close(self) -> None:
        """Blocks until the reads in progress have ended."""
        for reader in self._readers:
            reader.interrupt()
        self._threads.shutdown()
        for reader in (self._near, *self._readers):
            reader.close()

    async def _take(self) -> Reader:
        if self._free:
            return self._free.pop()
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable("Too many reads wait for the store.")
        lent: asyncio.Future[Reader] = asyncio.get_running_loop().create_future()
        self._waiting.append(lent)
        try:
            return await lent
        except asyncio.CancelledError:
            if lent.done() and not lent.cancelled():
                self._lend(lent.result())
            raise

    def _give_back(self, reader: Reader, done: "asyncio.Future[Any]") -> None:
        if not done.cancelled():
            done.exception()  # of a read that nobody waits for any more
        self._lend(reader)

    def _lend(self, reader: Reader) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(reader)
                return
        self._free.append(reader)


def _entries(what: str, plan: IndexPlan, limit: int | None = None) -> tuple[str, list[Any]]:
    """The runs' entries as one SELECT, each run cut to `limit` before they are merged.

    The text is made of this module's own words; every value is bound.
    """
    bound: list[Any] = []
    parts = []
    down = " DESC" if plan.backwards else ""
    for run in plan.runs:
        prefix = "prefix=?" if run.exact else "prefix>=? AND prefix<?"
        bound += [plan.index, run.low, *(() if run.exact else (run.high,)), plan.start, plan.stop]
        cut = ""
        if limit is not None:
            cut = f" ORDER BY suffix{down} LIMIT ?"
            bound.append(limit)
        parts.append(
            f"SELECT * FROM (SELECT {what} FROM entries"  # noqa: S608
            f" WHERE number=? AND {prefix} AND suffix>=? AND suffix<?{cut})"
        )
    merged = " UNION ALL ".join(parts)
    if limit is None:
        return merged, bound
    return f"SELECT * FROM ({merged}) ORDER BY suffix{down} LIMIT ?", [*bound, limit]  # noqa: S608
