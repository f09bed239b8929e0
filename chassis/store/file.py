"""The SQLite file: opened by one process, checked before anything is written, brought to the declared indexes.

Everything here blocks and runs on the writer's thread while a store opens or closes.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from chassis.store.faults import is_corrupt, translated
from chassis.store.indexes import Indexes, compiled, definitions
from chassis.store.port import Schema, StoreCorrupt, StoreUnavailable
from chassis.store.values import unpack

FORMAT: Final = 1
"""`user_version` of the files of this release; a file with a higher one is not touched."""
_APPLICATION: Final = 0x42415331
_HEADER: Final = 100
_CHECKED_BELOW: Final = 64 * 1024 * 1024
"""Larger files are not read through while opening: SQLite finds damage when it meets it."""

_TABLES: Final = """
CREATE TABLE documents (
  tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (tenant, collection, id)
) WITHOUT ROWID;
CREATE TABLE entries (
  number INTEGER NOT NULL, prefix BLOB NOT NULL, suffix BLOB NOT NULL, ref TEXT NOT NULL,
  PRIMARY KEY (number, prefix, suffix)
) WITHOUT ROWID;
CREATE TABLE indexes (number INTEGER PRIMARY KEY AUTOINCREMENT, definition TEXT NOT NULL UNIQUE);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), commit_time INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0);
"""


class StoreFile:
    """An open file: the write connection, the compiled indexes, and the lock that keeps other processes out."""

    def __init__(self, path: Path, lock: int, writer: sqlite3.Connection, indexes: Indexes) -> None:
        self.path = path
        self.writer = writer
        self.indexes = indexes
        self._lock = lock

    def reader(self) -> sqlite3.Connection:
        """Another connection, for reads alone. Raises StoreUnavailable."""
        try:
            connection = _connect(self.path, "ro")
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA busy_timeout=0")
        except sqlite3.Error as failure:
            raise translated(failure) from failure
        return connection

    def close(self) -> None:
        """Close the write connection, which folds the log into the file, and let others open it."""
        with suppress(sqlite3.Error):  # the log stays beside the file and is read by the next open
            self.writer.close()
        os.close(self._lock)


def open_file(path: Path, schema: Schema) -> StoreFile:
    """Raises StoreUnavailable (the folder, or another process) or StoreCorrupt; then nothing has been written."""
    wanted = definitions(schema)  # refuses a schema before anything is touched
    lock = _lock(path)
    connection: sqlite3.Connection | None = None
    try:
        existing = path.exists() and path.stat().st_size > 0
        if existing:
            _inspect(path)
        connection = _connect(path, "rw" if existing else "rwc")
        _prepare(connection)
        if not _has_tables(connection):
            connection.executescript(f"BEGIN;{_TABLES}PRAGMA application_id={_APPLICATION};"
                                     f"PRAGMA user_version={FORMAT};COMMIT;")  # fmt: skip
        indexes = _reconcile(connection, schema, wanted)
        # From here on calls run on the event loop: who finds the file busy is refused and tries again.
        connection.execute("PRAGMA busy_timeout=0")
    except sqlite3.Error as failure:
        _abandon(connection, lock)
        raise _refusal(path, failure) from failure
    except (StoreCorrupt, OSError):
        _abandon(connection, lock)
        raise
    return StoreFile(path, lock, connection, indexes)


def _lock(path: Path) -> int:
    """An advisory lock beside the file, for closing a descriptor of the file itself would drop SQLite's own locks."""
    beside = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise StoreUnavailable(
            f"The store's folder {path.parent} cannot be written ({failure.strerror}): make it writable, "
            "or name another with BAS_DATA_DIR or BAS_STORE_URL."
        ) from failure
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreUnavailable(
            f"{path} is in use by process {holder}: stop that one, or give this one another folder with BAS_DATA_DIR."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _abandon(connection: sqlite3.Connection | None, lock: int) -> None:
    if connection is not None:
        connection.close()
    os.close(lock)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Each connection is used by one thread at a time, which is not always the same one.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=0.5
    )


def _inspect(path: Path) -> None:
    """Look at a file through a read-only connection, which neither recovers nor folds in the log."""
    with path.open("rb") as file:
        if not file.read(_HEADER).startswith(b"SQLite format 3\x00"):
            raise StoreCorrupt(f"{path} is not a database: move it away or restore it from a backup.")
    with closing(_connect(path, "ro")) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION and (application or _has_tables(connection)):
            raise StoreCorrupt(f"{path} is another program's database: name another file with BAS_STORE_URL.")
        if version > FORMAT:
            raise StoreCorrupt(
                f"{path} was written by a newer release (format {version}, this one reads {FORMAT}): "
                "start that release, or restore a backup from before it."
            )
        if path.stat().st_size <= _CHECKED_BELOW:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise StoreCorrupt(f"{path} is damaged ({verdict}): restore it from a backup.")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-32768")
    connection.execute("PRAGMA temp_store=MEMORY")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _reconcile(connection: sqlite3.Connection, schema: Schema, wanted: Iterable[str]) -> Indexes:
    """Drop the indexes that are no longer declared and fill the new ones, all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    there = dict(connection.execute("SELECT definition, number FROM indexes").fetchall())
    for definition in there.keys() - set(wanted):
        connection.execute("DELETE FROM entries WHERE number=?", (there[definition],))
        connection.execute("DELETE FROM indexes WHERE number=?", (there[definition],))
    for definition in sorted(set(wanted) - there.keys()):
        connection.execute("INSERT INTO indexes (definition) VALUES (?)", (definition,))
    numbers = dict(connection.execute("SELECT definition, number FROM indexes").fetchall())
    _fill(connection, compiled(schema, {text: numbers[text] for text in numbers.keys() - there.keys()}))
    connection.execute("COMMIT")
    return compiled(schema, numbers)


def _fill(connection: sqlite3.Connection, missing: Indexes) -> None:
    for tenant, collection, body in connection.execute("SELECT tenant, collection, body FROM documents"):
        if missing.covers(collection):
            document = unpack(tenant, collection, body)
            entries = missing.entries(document.key, document.fields)
            connection.executemany("INSERT INTO entries VALUES (?,?,?,?)", entries)


def _refusal(path: Path, failure: sqlite3.Error) -> Exception:
    if is_corrupt(failure):
        return StoreCorrupt(f"{path} is damaged or not a database ({failure}): restore it from a backup.")
    return StoreUnavailable(
        f"{path} cannot be opened ({failure}): make the file and its folder writable, "
        "or name another with BAS_DATA_DIR or BAS_STORE_URL."
    )
