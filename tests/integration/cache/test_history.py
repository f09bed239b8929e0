"""A recorded history of concurrent readers and writers on a real server, held to the same check as the interleavings.

Two replicas with a connection each. The naive read-through, under the same load, is caught."""

import asyncio
import itertools
import time
from collections.abc import Callable
from random import Random

import pytest

from chassis.cache.client import CacheClient, open_cache
from chassis.cache.lease import Lives
from chassis.cache.port import Loaded
from chassis.cache.readthrough import LeaseReadThrough
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.history import History, Read, Write
from tests.support.naive_cache import NaiveReadThrough
from tests.support.valkey import Valkey

KEY = "acme/d1"
SECONDS = 1.5
LONGEST = 60.0
READS = 200
"""It lasts until there are so many, which a busy machine needs longer for."""
ROUNDS = 20
"""In which the naive one is caught: mostly in the first."""


def _leased(client: CacheClient) -> LeaseReadThrough:
    lives = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)
    return LeaseReadThrough(client, "dev", lives, Metrics())


def _naive(client: CacheClient) -> NaiveReadThrough:
    return NaiveReadThrough(client, "dev")


Made = LeaseReadThrough | NaiveReadThrough


class Run:
    def __init__(self, replicas: list[Made]) -> None:
        self.replicas = replicas
        self.history = History()
        self.version = 0
        self.loads = 0
        self.ticks = itertools.count()
        self.begun = 0.0
        self.random = Random(1)

    def going(self) -> bool:
        passed = time.monotonic() - self.begun
        return passed < SECONDS or (passed < LONGEST and len(self.history.reads) <= READS)

    async def reader(self, replica: Made) -> None:
        while self.going():
            began = float(next(self.ticks))
            data = await replica.get(KEY, self.load)
            self.history.reads.append(Read(began, float(next(self.ticks)), int(data or b"-1")))
            await asyncio.sleep(0)

    async def writer(self, replica: Made) -> None:
        while self.going():
            await asyncio.sleep(self.random.uniform(0, 0.004))
            self.version += 1
            write = Write(self.version, float(next(self.ticks)))
            self.history.writes.append(write)
            await asyncio.sleep(self.random.uniform(0, 0.002))
            if await replica.invalidate(KEY):
                write.acknowledged = float(next(self.ticks))

    async def load(self) -> Loaded:
        self.loads += 1
        await asyncio.sleep(self.random.uniform(0, 0.003))
        version = str(self.version)
        await asyncio.sleep(self.random.uniform(0, 0.003))
        return Loaded(version.encode(), version)

    async def run(self) -> History:
        self.begun = time.monotonic()
        readers = [self.reader(replica) for replica in self.replicas for _ in range(8)]
        await asyncio.gather(*readers, *(self.writer(replica) for replica in self.replicas))
        return self.history


@pytest.mark.parametrize(("make", "promised"), [(_leased, True), (_naive, False)])
async def test_history(valkey: Valkey, make: Callable[[CacheClient], Made], *, promised: bool) -> None:
    clients = [open_cache(patience.cache_at(valkey.url), Metrics()) for _ in range(2)]
    run = Run([make(client) for client in clients])
    for _ in range(1 if promised else ROUNDS):
        history = await run.run()
        violations = history.violations()
        if violations:
            break
    assert len(history.reads) > READS
    assert all(write.acknowledged for write in history.writes)
    if promised:
        assert violations == []
    else:
        assert any("stale" in line for line in violations)
    for replica, client in zip(run.replicas, clients, strict=True):
        await replica.close()
        await client.close()
