"""From BAS_STORE_URL to an open store."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from chassis.clock import Clock
from chassis.config import ConfigError
from chassis.config import Store as Budget
from chassis.store.instrumented import InstrumentedStore
from chassis.store.port import DocumentStore, Schema
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics

_ACCEPTED: Final = (
    "sqlite:///relative/folder/, sqlite:////absolute/folder/ or a .db file, or empty for one file a service in the "
    "data folder"
)


async def open_store(
    settings: Budget, data_dir: Path, service: str, schema: Schema, *, clock: Clock, metrics: Metrics
) -> DocumentStore:
    """The service's store, measured. Raises ConfigError for the URL, StoreUnavailable and StoreCorrupt for the file."""
    path = sqlite_path(settings.url, data_dir, service)
    store = await SqliteStore.open(path, schema, clock=clock, budget=settings)
    return InstrumentedStore(store, metrics, clock)


def sqlite_path(url: str, data_dir: Path, service: str) -> Path:
    """The service's file: `<service>.db` in the data folder, or in the folder that the URL names.

    `sqlite:///a/b` is the relative path a/b, `sqlite:////a/b` the absolute one, as SQLAlchemy writes them; a path that
    is a folder or ends in a slash is one. Raises ConfigError.
    """
    if not url:
        return data_dir / f"{service}.db"
    parts = urlsplit(url)
    if parts.scheme == "firestore":
        raise ConfigError(
            f"BAS_STORE_URL={url!r}: the Firestore store comes with a later release; this one takes {_ACCEPTED}."
        )
    named = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not named:
        raise ConfigError(f"BAS_STORE_URL={url!r} is not accepted: {_ACCEPTED}.")
    path = Path(named)
    return path / f"{service}.db" if named.endswith("/") or path.is_dir() else path
