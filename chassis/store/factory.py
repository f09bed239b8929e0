"""From BAS_STORE_URL to an open store."""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from chassis.clock import Clock
from chassis.config import ConfigError
from chassis.config import Store as Budget
from chassis.resilience.breaker import Guard
from chassis.resilience.lag import never_late
from chassis.store.copy import Dumpable
from chassis.store.guarded import GuardedStore
from chassis.store.instrumented import InstrumentedStore
from chassis.store.port import DocumentStore, Schema
from chassis.store.sqlite import SqliteStore
from chassis.store.sqlite_dump import SqliteDump
from chassis.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from chassis.store.firestore import FirestoreStore

DEFAULT_DATABASE: Final = "(default)"
_ACCEPTED: Final = (
    "sqlite:///relative/folder/, sqlite:////absolute/folder/ or a .db file, firestore://project or "
    "firestore://project/database, or empty for one file a service in the data folder"
)
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{1,61}[a-z0-9]")
_DATABASE: Final = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class FirestoreDatabase:
    """Where a Firestore store is."""

    project: str
    database: str


async def open_store(
    settings: Budget,
    data_dir: Path,
    service: str,
    schema: Schema,
    *,
    clock: Clock,
    metrics: Metrics,
    guard: Guard | None = None,
    late: Callable[[float], bool] = never_late,
) -> DocumentStore:
    """The service's store, measured, and behind `guard` if there is one, whose refusals are `StoreBreakerOpen`; `late` is
    as in `GuardedStore`. Raises ConfigError for the URL, the credentials and the database, StoreUnavailable and
    StoreCorrupt for the file, StoreUnavailable and StoreTimeout for a database that does not answer."""
    store = await open_engine(settings, data_dir, service, schema, clock=clock)
    guarded = store if guard is None else GuardedStore(store, guard, settings, clock, late)
    return InstrumentedStore(guarded, metrics, clock)


async def open_engine(settings: Budget, data_dir: Path, service: str, schema: Schema, *, clock: Clock) -> DocumentStore:
    """As `open_store`, without the measuring."""
    named = firestore_database(settings.url)
    if named is None:
        path = sqlite_path(settings.url, data_dir, service)
        return await SqliteStore.open(path, schema, clock=clock, budget=settings)
    return await _open_firestore(named, settings, service, schema, clock)


async def _open_firestore(
    named: FirestoreDatabase, settings: Budget, service: str, schema: Schema, clock: Clock
) -> "FirestoreStore":
    # Half a second of imports that only those pay who use it.
    from chassis.store.firestore import FirestoreStore  # noqa: PLC0415

    return await FirestoreStore.open(
        named.project,
        named.database,
        schema,
        clock=clock,
        budget=settings,
        random_bytes=secrets.token_bytes,
        service=service,
    )


class NothingToCopy(ConfigError):
    """The file that a copy is to read is not there."""


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """One end of a copy: the store, what tells all that is in it, and how both are closed."""

    store: DocumentStore
    dump: Dumpable
    close: Callable[[], Awaitable[None]]


async def open_copy_end(
    settings: Budget, data_dir: Path, service: str, schema: Schema, *, clock: Clock, existing: bool
) -> CopyEnd:
    """Raises as `open_store`, and NothingToCopy for a file that should be `existing` and is not. While it is open, no
    service can use the file; a database cannot be locked so."""
    named = firestore_database(settings.url)
    if named is None:
        path = sqlite_path(settings.url, data_dir, service)
        if existing and not path.exists():
            raise NothingToCopy(f"{settings.url}: there is no file {path} of the service {service}.")
        file = await SqliteStore.open(path, schema, clock=clock, budget=settings)
        dump = SqliteDump(path)

        async def close() -> None:
            await dump.close()
            await file.close()

        return CopyEnd(file, dump, close)
    from chassis.store.firestore_dump import FirestoreDump  # noqa: PLC0415 - as above

    store = await _open_firestore(named, settings, service, schema, clock)
    return CopyEnd(store, FirestoreDump(store, service), store.close)


def firestore_database(url: str) -> FirestoreDatabase | None:
    """What `firestore://project/database` names, or None for another kind of URL; without a database it is
    `(default)`. FIRESTORE_EMULATOR_HOST, which Google's client reads, sends it to an emulator. Raises ConfigError."""
    if not url.startswith("firestore:"):
        return None
    parts = urlsplit(url)
    # A project of a domain (`example.com:name`) has a colon, which urlsplit would take for a port.
    project, database = unquote(parts.netloc), unquote(parts.path.strip("/")) or DEFAULT_DATABASE
    well = _PROJECT.fullmatch(project) and _DATABASE.fullmatch(database)
    if not well or parts.query or parts.fragment:
        raise ConfigError(f"BAS_STORE_URL={url!r} is not accepted: {_ACCEPTED}.")
    return FirestoreDatabase(project, database)


def sqlite_path(url: str, data_dir: Path, service: str) -> Path:
    """The service's file: `<service>.db` in the data folder, or in the folder that the URL names.

    `sqlite:///a/b` is the relative path a/b, `sqlite:////a/b` the absolute one, as SQLAlchemy writes them; a path that
    is a folder or ends in a slash is one. Raises ConfigError.
    """
    if not url:
        return data_dir / f"{service}.db"
    parts = urlsplit(url)
    named = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not named:
        raise ConfigError(f"BAS_STORE_URL={url!r} is not accepted: {_ACCEPTED}.")
    path = Path(named)
    return path / f"{service}.db" if named.endswith("/") or path.is_dir() else path
