"""The cache under faults of a real server: reads go on, each operation is bounded, and the cache comes back."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from chassis import config
from chassis.cache.client import CacheBreakerOpen, CacheClient, open_cache
from chassis.cache.lease import Lives
from chassis.cache.port import CacheUnavailable, Loaded
from chassis.cache.readthrough import LeaseReadThrough
from chassis.clock import SystemClock
from chassis.resilience.breaker import Breaker, Guard, State
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.valkey import Valkey

LIVES = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)
OPERATION = 1.0


class Rig:
    """A client with a time-out that a busy machine does not reach by itself, and a read-through that counts loads."""

    def __init__(self, url: str, guard: Guard | None = None) -> None:
        self.metrics = Metrics()
        self.client = open_cache(patience.cache_at(url, OPERATION), self.metrics, guard=guard)
        self.devices = LeaseReadThrough(self.client, "dev", LIVES, self.metrics)
        self.loads = 0

    async def read(self, key: str = "acme/d1") -> bytes | None:
        async def load() -> Loaded:
            self.loads += 1
            return Loaded(b"data", "1")

        return await self.devices.get(key, load)

    async def caches(self) -> bool:
        before = self.loads
        await self.read()
        await self.read()
        return self.loads == before

    def event(self, event: str) -> float:
        return self.metrics.registry.get_sample_value("bas_cache_connection_events_total", {"event": event}) or 0.0

    async def close(self) -> None:
        await self.devices.close()
        await self.client.close()


@pytest.fixture
async def rig(own_valkey: Valkey) -> AsyncIterator[Rig]:
    made = Rig(own_valkey.url)
    await eventually(made.caches, "the cache is used")
    yield made
    await made.close()


async def test_reads_go_on_while_the_server_is_dead_and_it_is_used_again(rig: Rig, own_valkey: Valkey) -> None:
    epoch = rig.client.epoch
    stop = asyncio.Event()
    answers: list[bytes | None] = []

    async def reader() -> None:
        while not stop.is_set():
            answers.append(await rig.read())
            await asyncio.sleep(0)

    readers = [asyncio.create_task(reader()) for _ in range(8)]
    await own_valkey.kill()
    await eventually(lambda: rig.client.epoch is None, "the death is noticed")
    loads = rig.loads
    await eventually(lambda: rig.loads > loads + 100, "reads go to the loader")
    await own_valkey.start()
    await eventually(rig.caches, "the restarted cache is used")
    stop.set()
    await asyncio.gather(*readers)
    assert set(answers) == {b"data"}
    assert rig.client.epoch not in (None, epoch)


async def test_a_connection_made_again_ends_the_time_of_an_open_breaker(own_valkey: Valkey) -> None:
    breaker = Breaker(
        "cache", config.Breaker(half_open_after=config.Seconds(3600)), SystemClock(), refusal=CacheBreakerOpen
    )
    made = Rig(own_valkey.url, breaker)
    await eventually(made.caches, "the cache is used")
    await own_valkey.kill()

    async def opened() -> bool:
        await made.read()
        return breaker.state is State.OPEN

    await eventually(opened, "the breaker is open")
    await own_valkey.start()
    await eventually(made.caches, "the restarted cache is used, though nobody waited for an hour")
    await made.close()


async def test_a_stall_costs_an_operation_its_time_and_then_nothing(rig: Rig, own_valkey: Valkey) -> None:
    own_valkey.pause()
    try:
        began = time.monotonic()
        with pytest.raises(CacheUnavailable):
            await rig.client.get("k")
        first = time.monotonic() - began
        assert OPERATION * 0.9 <= first < OPERATION + 10
        assert await rig.read() == b"data"

        await asyncio.gather(*(rig.read(f"acme/{n}") for n in range(50)))
        await eventually(lambda: rig.event("stalled") == 1, "the stalled connection is given up")
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(CacheUnavailable):
                await rig.client.get("k")
        assert time.monotonic() - began < 5 * OPERATION, "none of them waits"
    finally:
        own_valkey.resume()
    await eventually(rig.caches, "the cache is used again")


async def test_late_replies_do_not_reach_later_commands(rig: Rig, own_valkey: Valkey) -> None:
    for n in range(10):
        await rig.client.set(f"k{n}", b"%d" % n, ttl=60)
    own_valkey.pause()
    late = await asyncio.gather(*(rig.client.get(f"k{n}") for n in range(5)), return_exceptions=True)
    own_valkey.resume()
    assert all(isinstance(answer, CacheUnavailable) for answer in late)
    assert rig.event("stalled") == 0
    assert [await rig.client.get(f"k{n}") for n in range(5, 10)] == [b"%d" % n for n in range(5, 10)]


async def test_cancelled_callers_do_not_disturb_the_connection(rig: Rig) -> None:
    await rig.client.set("k", b"v", ttl=60)
    for turn in range(50):
        tasks = [asyncio.create_task(rig.client.get(f"absent{n}")) for n in range(20)]
        kept = asyncio.create_task(rig.client.get("k"))
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert await kept == b"v"
        await asyncio.gather(*tasks, return_exceptions=True)
    assert rig.event("connected") == 1


async def test_more_waiting_commands_than_the_bound_are_refused_at_once(rig: Rig, own_valkey: Valkey) -> None:
    own_valkey.pause()
    try:
        answers = await asyncio.gather(*(rig.client.get("k") for _ in range(5000)), return_exceptions=True)
    finally:
        own_valkey.resume()
    assert all(isinstance(answer, CacheUnavailable) for answer in answers)
    assert rig.event("overflow") == 5000 - 4096


async def test_a_busy_loop_is_not_a_slow_cache(rig: Rig) -> None:
    await rig.client.set("k", b"v", ttl=60)
    reading = asyncio.create_task(rig.client.get("k"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(1.5 * OPERATION)  # noqa: ASYNC251 - a blocked loop is what is tested
    assert await reading == b"v"


async def test_a_wrong_password_is_told_once_and_is_no_error_of_a_read(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.command("CONFIG", "SET", "requirepass", "right")
    refused = Rig(f"{own_valkey.url}&password=wrong")
    try:
        assert await refused.read() == b"data"
        await eventually(lambda: refused.event("credentials_refused") >= 2, "it goes on trying")
        assert await refused.read() == b"data"
        told = [line for line in caplog.messages if "credentials_refused" in line]
        assert len(told) == 1
        assert "WRONGPASS" in told[0]
        assert "wrong" not in told[0].replace("WRONGPASS", "").split("(")[0]
    finally:
        await refused.close()
    entering = Rig(f"{own_valkey.url}&password=right")
    await eventually(entering.caches, "the right password enters")
    await entering.close()


async def test_nobody_there_never_blocks(tmp_path: object) -> None:
    client = open_cache(patience.cache_at("unix:///nonexistent/valkey.sock", OPERATION), Metrics())
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(CacheUnavailable):
            await client.get("k")
    assert time.monotonic() - began < 20 * OPERATION, "none of them waits"
    await client.close()
    with pytest.raises(CacheUnavailable):
        await client.get("k")


async def test_constructing_and_closing_unused_does_nothing() -> None:
    client: CacheClient = open_cache(config.Redis(url="redis://127.0.0.1:1/0"), Metrics())
    await client.close()
    await client.close()


async def test_databases_are_separate(own_valkey: Valkey) -> None:
    first, second = (Rig(own_valkey.url.replace("db=0", f"db={n}")) for n in (0, 3))
    await first.client.set("k", b"first", ttl=60)
    assert await second.client.get("k") is None
    await first.close()
    await second.close()
