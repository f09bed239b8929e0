"""A process that commits batches until it is killed, and prints the number of each once it is acknowledged."""

import asyncio
import sys
from pathlib import Path

from chassis.clock import SystemClock
from chassis.config import Seconds, Store
from chassis.store.port import Create, Index, Key, Schema
from chassis.store.sqlite import SqliteStore

SCHEMA = Schema((Index("batches", ("batch",)),))
SIZE = 5
BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


async def commit_forever(path: Path) -> None:
    store = await SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=BUDGET)

    async def one(lane: int) -> None:
        for number in range(1_000_000):
            batch = f"{lane}-{number}"
            await store.commit(
                [Create(Key("t", "batches", f"{batch}-{part}"), {"batch": batch}) for part in range(SIZE)]
            )
            print(batch, flush=True)  # noqa: T201 - the acknowledgement that the test reads

    await asyncio.gather(*(one(lane) for lane in range(8)))


if __name__ == "__main__":
    asyncio.run(commit_forever(Path(sys.argv[1])))
