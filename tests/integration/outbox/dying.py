"""A process that commits effects and delivers them to a file, and may be killed at a point of its work.

`python -m tests.integration.outbox.dying FOLDER POINT`: at `committed` it dies after its commits and before any delivery,
at `delivered` after a delivery and before the removal, at `removed` after a removal; at `none` it ends by itself.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chassis.clock import FakeClock, SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.port import Effect
from chassis.outbox.records import SCHEMA
from chassis.store.port import Committed, Create, Delete, Key, Write
from chassis.store.sqlite import SqliteStore
from tests.support.deliveries import Office, effect

KEYS, EACH, BATCH = 5, 6, 8


class Dying(SqliteStore):
    """Dies when a commit with removals has returned."""

    async def commit(self, writes: Sequence[Write]) -> Committed:
        committed = await super().commit(writes)
        if any(isinstance(write, Delete) for write in writes):
            die()
        return committed


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: Path, point: str) -> None:
    kind = Dying if point == "removed" else SqliteStore
    # Days apart, so that what another process committed is taken to be left behind.
    clock = FakeClock(datetime(2026, 1, 1 + ("committed", "delivered", "removed", "none").index(point), tzinfo=UTC))
    budget = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
    store = await kind.open(folder / "store.db", SCHEMA, clock=SystemClock(), budget=budget)

    async def deliver(effects: Sequence[Effect]) -> list[None]:
        with (folder / "delivered").open("a", encoding="utf-8") as file:
            file.writelines(f"{each.key} {each.id}\n" for each in effects)
        if point == "delivered":
            die()
        return [None] * len(effects)

    office = Office(store, deliver, clock, by=str(os.getpid()), batch=BATCH)
    if not (folder / "delivered").exists():
        for number in range(EACH):
            for key in range(KEYS):
                told = effect(f"{key}-{number}", f"k{key}")
                state = Create(Key("acme", "things", told.id), {})
                await store.commit([state, *office.outbox.records([told])])
    if point == "committed":
        (folder / "delivered").touch()
        die()
    await office.relay.walk()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
