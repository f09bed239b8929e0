"""The logs under test: what they share, and what may be done to each."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.clock import FakeClock
from services.events.port import EventLog
from tests.support.event_log import MemoryEventLog
from tests.support.redis_event_log import redis_event_log, settings
from tests.support.valkey import Valkey

KEEP = 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A log that keeps `KEEP` events of a tenant; `lose` makes it lose all that is in it."""

    log: EventLog
    lose: Callable[[], None]


@asynccontextmanager
async def memory() -> AsyncIterator[Subject]:
    log = MemoryEventLog(FakeClock(), shards=4, keep=KEEP)

    def lose() -> None:
        for shard in range(4):
            log.lose(shard)

    yield Subject(log, lose)


@asynccontextmanager
async def real(server: Valkey) -> AsyncIterator[Subject]:
    async with redis_event_log(server.url, settings(count=KEEP)) as log:
        yield Subject(log, lambda: server.command("FLUSHALL"))
