"""What runs inside one write transaction: commits and the removal of expired documents.

Preconditions are checked before the first change. So a commit that is refused has changed nothing, and the others of
its group go on without a savepoint.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from chassis.clock import Clock
from chassis.store.encoding import EPOCH, encode, microseconds
from chassis.store.indexes import Entry, ExpiryIndex, Indexes
from chassis.store.port import (
    Committed,
    Create,
    Delete,
    DocumentExists,
    DocumentMissing,
    Key,
    Put,
    Update,
    VersionConflict,
    Write,
)
from chassis.store.values import unpack

_READ: Final = "SELECT body FROM documents WHERE tenant=? AND collection=? AND id=?"
_WRITE: Final = "INSERT OR REPLACE INTO documents VALUES (?,?,?,?)"
_REMOVE: Final = "DELETE FROM documents WHERE tenant=? AND collection=? AND id=?"
_POINT: Final = "INSERT INTO entries VALUES (?,?,?,?)"
_UNPOINT: Final = "DELETE FROM entries WHERE number=? AND prefix=? AND suffix=?"

STEP: Final = 32
"""Documents changed without letting others run: about 1 ms."""

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked write: `body` is the stored array less its version, `entries` what is to point at the document."""

    write: Write
    body: str
    entries: Sequence[Entry]


class Transaction:
    """One open write transaction, with the commit time, which grows and is every version."""

    def __init__(self, connection: sqlite3.Connection, indexes: Indexes, clock: Clock) -> None:
        self._connection = connection
        self._indexes = indexes
        self._clock = clock
        (self._time,) = connection.execute("SELECT commit_time FROM state").fetchone()
        self._saved = self._time

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def seal(self) -> None:
        """Write down the time, if anything was stamped."""
        if self._saved != self._time:
            self._connection.execute("UPDATE state SET commit_time=?", (self._time,))

    def commit(self) -> None:
        """Make it durable: returns after the disk has confirmed, or at once when nothing was changed."""
        self._connection.execute("COMMIT")
        self._saved = self._time

    def rollback(self) -> None:
        if self._connection.in_transaction:  # SQLite may have rolled back by itself, for want of space
            self._connection.execute("ROLLBACK")
        self._time = self._saved

    def stamp(self) -> tuple[str, datetime]:
        """A version and a time that no commit of this file had before.

        The version is the time, as Firestore's is: a counter would tell each tenant how much the others write.
        """
        self._time = max(microseconds(self._clock.now()), self._time + 1)
        return str(self._time), EPOCH + timedelta(microseconds=self._time)

    def now(self) -> datetime:
        return self._clock.now().astimezone(UTC)

    def body(self, key: Key) -> str | None:
        row = self._connection.execute(_READ, (key.tenant, key.collection, key.id)).fetchone()
        return row[0] if row else None

    def apply(self, version: str, changes: Iterable[tuple[Prepared, str | None]]) -> None:
        """Make the changes, each a write and the body that it replaces; of entries only those that differ."""
        written, removed, gone = [], [], []
        added: list[Entry] = []
        for prepared, old in changes:
            key = prepared.write.key
            address = (key.tenant, key.collection, key.id)
            if not isinstance(prepared.write, Delete):
                written.append((*address, f'["{version}",{prepared.body}'))
            elif old is not None:
                removed.append(address)
            there, wanted = self._pointing(key, old), prepared.entries
            if there:
                kept = set(there) & set(wanted)
                gone += [entry[:3] for entry in there if entry not in kept]
                wanted = [entry for entry in wanted if entry not in kept]
            added += wanted
        for statement, rows in ((_WRITE, written), (_REMOVE, removed), (_UNPOINT, gone), (_POINT, added)):
            if rows:
                self._connection.executemany(statement, rows)

    def expired(self, index: ExpiryIndex, limit: int) -> list[Key]:
        rows = self._connection.execute(
            "SELECT ref FROM entries WHERE number=? AND prefix=x'' AND suffix<? LIMIT ?",
            (index.number, encode(self.now()), limit),
        ).fetchall()
        return [Key(tenant, index.collection, name) for tenant, name in (json.loads(ref) for (ref,) in rows)]

    def _pointing(self, key: Key, body: str | None) -> Sequence[Entry]:
        """The entries of a stored document."""
        if body is None or not self._indexes.covers(key.collection):
            return ()
        return self._indexes.entries(key, unpack(key.tenant, key.collection, body).fields)


class Work(Protocol[R_co]):
    """Something to be done within a write transaction."""

    def steps(self, transaction: Transaction) -> Generator[None, None, R_co]:
        """Short steps that return the result; raises PreconditionFailed before anything is changed."""
        ...


class CommitWork:
    """One caller's commit."""

    def __init__(self, writes: Sequence[Prepared]) -> None:
        self._writes = writes

    def steps(self, transaction: Transaction) -> Generator[None, None, Committed]:
        current: list[str | None] = []
        for number, prepared in enumerate(self._writes, 1):
            current.append(transaction.body(prepared.write.key))
            _require(prepared.write, current[-1])
            if number % STEP == 0:
                yield
        version, time = transaction.stamp()
        for first in range(0, len(self._writes), STEP):
            if first:
                yield
            some = slice(first, first + STEP)
            transaction.apply(version, zip(self._writes[some], current[some], strict=True))
        versions = ("" if isinstance(each.write, Delete) else version for each in self._writes)
        return Committed(tuple(versions), time)


class SweepWork:
    """Remove documents whose time is over."""

    def __init__(self, indexes: Sequence[ExpiryIndex], limit: int) -> None:
        self._indexes = indexes
        self._limit = limit

    def steps(self, transaction: Transaction) -> Generator[None, None, int]:
        removed = 0
        for index in self._indexes:
            for key in transaction.expired(index, self._limit - removed):
                body = transaction.body(key)
                if body is not None:
                    transaction.apply("", [(Prepared(Delete(key), "", ()), body)])
                    removed += 1
                if removed % STEP == 0:
                    yield
        if removed:
            transaction.stamp()
        return removed


def _require(write: Write, body: str | None) -> None:
    match write:
        case Put():
            return
        case Create(key=key):
            if body is not None:
                raise DocumentExists(key)
        case Update(key=key, version=version) | Delete(key=key, version=version):
            if version is not None:
                if body is None or _version(body) != version:
                    raise VersionConflict(key)
            elif body is None and (isinstance(write, Update) or write.must_exist):
                raise DocumentMissing(key)


def _version(body: str) -> str:
    """The first element of a stored array, `["12",…`."""
    return body[2 : body.index('"', 2)]
