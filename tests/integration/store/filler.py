"""A process that fills the disk under its store, frees it again, and prints what it met as it went on."""

import asyncio
import sys
from pathlib import Path

from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.port import Create, Key, Query
from chassis.store.sqlite import SqliteStore
from tests.integration.store.committer import BUDGET, SCHEMA

_MOST = 500


async def fill(folder: Path, size: int) -> None:
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(200_000))
    store = await SqliteStore.open(folder / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
    kept: list[Key] = []

    async def commit(name: str) -> None:
        keys = [Key("t", "batches", f"{name}-{part}") for part in range(3)]
        await store.commit([Create(key, {"batch": name, "body": "x" * size}) for key in keys])
        kept.extend(keys)

    async def check() -> None:
        found = await store.get_many(kept[-400:])
        print("kept" if None not in found else "LOST", flush=True)  # noqa: T201 - what the test reads
        count = await store.count(Query("t", "batches"))
        print("whole" if count == len(kept) else "TORN", flush=True)  # noqa: T201

    for number in range(_MOST):
        try:
            await commit(f"{number}")
        except ApiError as refused:
            print(type(refused).__name__, flush=True)  # noqa: T201
            break
    await check()
    try:
        await commit("again")
    except ApiError as refused:
        print(type(refused).__name__, flush=True)  # noqa: T201
    ballast.unlink()
    await commit("freed")
    await check()
    await store.close()
    store = await SqliteStore.open(folder / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
    await check()
    await store.close()


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2])))
