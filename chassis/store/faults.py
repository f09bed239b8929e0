"""SQLite's error codes as the port's errors."""

import sqlite3

from chassis.errors import ApiError
from chassis.store.port import StoreCorrupt, StoreFull, StoreTimeout, StoreUnavailable

_PRIMARY = 0xFF
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def translated(failure: sqlite3.Error) -> ApiError:
    """The error that a caller sees, without the file's name or the statement."""
    code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
    if code == sqlite3.SQLITE_FULL:
        return StoreFull()
    if code in _CORRUPT:
        return StoreCorrupt("The store's file is damaged: restore it from a backup.")
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreTimeout()
    return StoreUnavailable(f"The store's file cannot be read or written ({_name(failure)}).")


def is_corrupt(failure: sqlite3.Error) -> bool:
    return isinstance(translated(failure), StoreCorrupt)


def _name(failure: sqlite3.Error) -> str:
    return getattr(failure, "sqlite_errorname", "SQLITE_ERROR")
