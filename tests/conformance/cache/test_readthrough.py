"""The ReadThrough port's promises, on a real server and on the cache in memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random

import pytest

from chassis.cache.client import open_cache
from chassis.cache.lease import Lives
from chassis.cache.port import Cache, Loaded, ReadThrough
from chassis.cache.readthrough import GroupReadThrough, LeaseReadThrough
from chassis.clock import SystemClock
from chassis.errors import deadline_exceeded
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.memory_cache import MemoryCache
from tests.support.valkey import Valkey

LIVES = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)


class Source:
    """A store of versions that counts its loads, and holds them while `gate` is closed."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: str = "acme/d1") -> Loaded | None:
        self.loads += 1
        data = self.data.get(key)
        await self.gate.wait()
        return None if data is None else Loaded(data, "1")

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Loaded | None]:
        self.loads += 1
        return {key: Loaded(self.data[key], "1") for key in keys if key in self.data}


@pytest.fixture(params=["valkey", "memory"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(SystemClock())
        return
    server: Valkey = request.getfixturevalue("valkey")
    client = open_cache(patience.cache_at(server.url), Metrics())
    yield client
    await client.close()


@pytest.fixture
async def devices(cache: Cache) -> AsyncIterator[LeaseReadThrough]:
    made = LeaseReadThrough(cache, "dev", LIVES, Metrics(), Random(1))
    yield made
    await made.close()


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_second_read_is_a_hit(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b"one"
    assert [await devices.get("acme/d1", source.load) for _ in range(3)] == [b"one"] * 3
    assert source.loads == 1


async def test_an_absence_is_remembered(devices: ReadThrough, source: Source) -> None:
    assert [await devices.get("acme/d1", source.load) for _ in range(3)] == [None] * 3
    assert source.loads == 1


async def test_an_empty_message_is_not_an_absence(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b""
    assert [await devices.get("acme/d1", source.load) for _ in range(2)] == [b"", b""]


async def test_after_an_invalidation_the_new_is_read(devices: ReadThrough, source: Source) -> None:
    for data in (b"one", b"two"):
        source.data["acme/d1"] = data
        assert await devices.invalidate("acme/d1", "acme/other")
        assert await devices.get("acme/d1", source.load) == data


async def test_concurrent_misses_load_once(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b"one"
    source.gate.clear()
    readers = [asyncio.create_task(devices.get("acme/d1", source.load)) for _ in range(20)]
    await eventually(lambda: source.loads > 0, "the load begins")
    source.gate.set()
    assert set(await asyncio.gather(*readers)) == {b"one"}
    assert source.loads == 1


async def test_a_load_that_a_write_overtook_does_not_fill(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b"old"
    source.gate.clear()
    reader = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads > 0, "the load begins")
    source.data["acme/d1"] = b"new"
    await devices.invalidate("acme/d1")
    late = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads == 2, "a later reader does not join the load before it")
    source.gate.set()
    assert await reader == b"old"
    assert await late == b"new"
    assert await devices.get("acme/d1", source.load) == b"new"


async def test_a_read_does_not_join_a_load_from_before_another_replicas_write(
    cache: Cache, devices: ReadThrough, source: Source
) -> None:
    other_replica = LeaseReadThrough(cache, "dev", LIVES, Metrics(), Random(2))
    source.data["acme/d1"] = b"old"
    source.gate.clear()
    early = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads > 0, "the load begins")
    source.data["acme/d1"] = b"new"
    assert await other_replica.invalidate("acme/d1")
    late = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads == 2, "it loads for itself")
    source.gate.set()
    assert await early == b"old"
    assert await late == b"new"


async def test_a_cancelled_leader_does_not_fail_its_followers(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b"one"
    source.gate.clear()
    leader = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads > 0, "the load begins")
    followers = [asyncio.create_task(devices.get("acme/d1", source.load)) for _ in range(3)]
    await asyncio.sleep(0.02)
    leader.cancel()
    source.gate.set()
    assert await asyncio.gather(*followers) == [b"one"] * 3
    assert leader.cancelled() or leader.cancelling()


async def test_the_last_reader_to_leave_ends_the_load(devices: LeaseReadThrough, source: Source) -> None:
    source.gate.clear()
    only = asyncio.create_task(devices.get("acme/d1", source.load))
    await eventually(lambda: source.loads > 0, "the load begins")
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    await eventually(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("load ")], "it ends")


async def test_a_leaders_deadline_is_not_its_followers(devices: ReadThrough, source: Source) -> None:
    source.data["acme/d1"] = b"one"
    begun = asyncio.Event()

    async def late() -> Loaded | None:
        begun.set()
        await source.gate.wait()
        raise deadline_exceeded()

    source.gate.clear()
    leader = asyncio.create_task(devices.get("acme/d1", late))
    await begun.wait()
    follower = asyncio.create_task(devices.get("acme/d1", source.load))
    await asyncio.sleep(0.02)
    source.gate.set()
    assert await follower == b"one"
    with pytest.raises(type(deadline_exceeded()), match="deadline"):
        await leader


async def test_many_are_one_load(devices: ReadThrough, source: Source) -> None:
    source.data = {f"acme/d{n}": b"%d" % n for n in range(10)}
    keys = [*source.data, "acme/none", "acme/d1"]
    for loads in (1, 1):
        found = await devices.get_many(keys, source.load_many)
        assert found == {**source.data, "acme/none": None}
        assert source.loads == loads
    await devices.invalidate("acme/d3")
    source.data["acme/d3"] = b"new"
    assert (await devices.get_many(keys, source.load_many))["acme/d3"] == b"new"
    assert source.loads == 2
    assert await devices.get("acme/d3", source.load) == b"new"
    assert source.loads == 2
    assert await devices.get_many([], source.load_many) == {}


async def test_a_bound_on_an_entrys_life_holds(devices: ReadThrough) -> None:
    loads = 0

    async def load() -> Loaded:
        nonlocal loads
        loads += 1
        return Loaded(b"%d" % loads, "1", max_ttl=0.05)

    assert await devices.get("k/1", load) == b"1"

    async def reloaded() -> bool:
        return await devices.get("k/1", load) != b"1"

    await eventually(reloaded, "the entry ends by its bound, far before its TTL")


async def test_an_entry_of_an_unknown_format_is_not_believed(
    devices: ReadThrough, cache: Cache, source: Source
) -> None:
    source.data["acme/d1"] = b"one"
    await cache.set("dev:{acme/d1}", b"\x63\x00other", ttl=60)
    assert await devices.get("acme/d1", source.load) == b"one"
    assert await devices.get_many(["acme/d1"], source.load_many) == {"acme/d1": b"one"}
    assert await cache.get("dev:{acme/d1}") == b"\x63\x00other"


async def test_a_groups_members_end_together_and_alone(cache: Cache, source: Source) -> None:
    lists = GroupReadThrough(cache, "dev:list", LIVES, Metrics(), Random(1))
    source.data = {"acme": b"1", "other": b"1"}

    async def page(group: str, member: str) -> bytes | None:
        return await lists.get(group, member, lambda: source.load(group))

    members = [("acme", "filter=a"), ("acme", ""), ("other", "")]
    for _ in range(2):
        assert [await page(*member) for member in members] == [b"1"] * 3
    assert source.loads == 3
    source.data = {"acme": b"2", "other": b"2"}
    assert await lists.invalidate("acme")
    assert [await page(*member) for member in members] == [b"2", b"2", b"1"]
    await lists.close()


async def test_a_failing_cache_is_no_error_of_a_read(source: Source) -> None:
    cache = MemoryCache(SystemClock())
    metrics = Metrics()
    devices = LeaseReadThrough(cache, "dev", LIVES, metrics)
    lists = GroupReadThrough(cache, "list", LIVES, metrics)
    source.data["acme/d1"] = b"one"
    cache.away = True
    assert await devices.get("acme/d1", source.load) == b"one"
    assert await devices.get_many(["acme/d1"], source.load_many) == {"acme/d1": b"one"}
    assert await lists.get("acme", "", source.load) == b"one"
    assert await devices.invalidate("acme/d1") is False
    assert await lists.invalidate("acme") is False
    reads = {"cache": "dev", "outcome": "bypass"}
    assert metrics.registry.get_sample_value("bas_cache_reads_total", reads) == 2
