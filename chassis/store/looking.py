"""Looking at a service's documents while the service runs, without a part in its store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis.clock import Clock
from chassis.config import Store as Budget
from chassis.store.copy import Dumpable
from chassis.store.factory import firestore_database, open_copy_end, sqlite_path
from chassis.store.port import Schema
from chassis.store.sqlite_dump import SqliteDump


@asynccontextmanager
async def looking(
    settings: Budget, data_dir: Path, service: str, schema: Schema, *, clock: Clock
) -> AsyncIterator[Dumpable | None]:
    """What the store holds, to be read; None when there is no file yet. A file is read beside the process that has it.

    Raises as `open_store`.
    """
    if firestore_database(settings.url) is None:
        path = sqlite_path(settings.url, data_dir, service)
        if not path.exists():
            yield None
            return
        file = SqliteDump(path)
        try:
            yield file
        finally:
            await file.close()
        return
    end = await open_copy_end(settings, data_dir, service, schema, clock=clock, existing=True)
    try:
        yield end.dump
    finally:
        await end.close()
