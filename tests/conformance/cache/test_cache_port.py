"""The Cache port's promises, on the client with a real server and on the cache in memory."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from chassis.cache import lease
from chassis.cache.client import open_cache
from chassis.cache.port import Cache, Script
from chassis.clock import FakeClock, SystemClock
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.memory_cache import MemoryCache
from tests.support.valkey import Valkey


@pytest.fixture(params=["valkey", "memory"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(SystemClock())
        return
    server: Valkey = request.getfixturevalue("valkey")
    client = open_cache(patience.cache_at(server.url), Metrics())
    yield client
    await client.close()


async def test_an_absent_key_is_none(cache: Cache) -> None:
    assert await cache.get("k") is None


@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)), b"\r\n$-1\r\n", b"x" * 3_000_000])
async def test_values_are_bytes_unchanged(cache: Cache, value: bytes) -> None:
    await cache.set("k{é}", value, ttl=60)
    assert await cache.get("k{é}") == value


async def test_mget_answers_in_order_with_gaps_and_repeats(cache: Cache) -> None:
    await cache.set("a", b"1", ttl=60)
    await cache.set("b", b"2", ttl=60)
    assert await cache.mget(["b", "x", "a", "b"]) == [b"2", None, b"1", b"2"]
    assert await cache.mget([]) == []


async def test_delete_counts_what_existed(cache: Cache) -> None:
    await cache.set("a", b"1", ttl=60)
    assert await cache.delete("a", "b") == 1
    assert await cache.delete("a") == 0
    assert await cache.delete() == 0


async def test_a_value_ends_after_its_ttl(cache: Cache) -> None:
    await cache.set("a", b"1", ttl=0.05)

    async def gone() -> bool:
        return await cache.get("a") is None

    await eventually(gone, "the value ends")


@pytest.mark.parametrize("ttl", [0, -1.0])
async def test_a_ttl_must_be_positive(cache: Cache, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        await cache.set("a", b"1", ttl=ttl)


async def test_concurrent_operations_get_their_own_answers(cache: Cache) -> None:
    await asyncio.gather(*(cache.set(f"k{n}", b"%d" % n, ttl=60) for n in range(500)))
    assert await asyncio.gather(*(cache.get(f"k{n}") for n in range(500))) == [b"%d" % n for n in range(500)]


async def test_scripts_are_loaded_on_demand(valkey: Valkey) -> None:
    client = open_cache(patience.cache_at(valkey.url), Metrics())
    script = Script("sum", "return {ARGV[1] + ARGV[2], KEYS[1], false}")
    try:
        assert await client.run(script, ("k",), (1, 2)) == [3, b"k", None]
        valkey.command("SCRIPT", "FLUSH")
        assert await client.run(script, ("k",), (1, 2)) == [3, b"k", None]
        with pytest.raises(RuntimeError, match="oops"):
            await client.run(Script("wrong", "return redis.error_reply('ERR oops')"), ())
    finally:
        await client.close()


async def test_slow_commands_go_through_redis_py(valkey: Valkey) -> None:
    client = open_cache(patience.cache_at(valkey.url), Metrics())
    try:
        await client.get("k")
        assert (await client.command("INFO", "server"))["run_id"].startswith(client.epoch)
        with pytest.raises(RuntimeError, match="unknown command"):
            await client.command("NONSENSE")
    finally:
        await client.close()


async def test_the_scripts_twins_answer_like_the_scripts(valkey: Valkey) -> None:
    """MemoryCache stands for the server in the interleavings: each script, both sides, the same random calls."""
    real = open_cache(patience.cache_at(valkey.url), Metrics())
    twin = MemoryCache(FakeClock())
    random = Random(7)
    names = ("dev:{a}", "dev:{a}:g", "dev:{a}:f")
    tokens = [b"1" * 24, b"2" * 24]
    try:
        for _ in range(1500):
            token, other = random.choice(tokens), random.choice(tokens)
            script, keys, args = random.choice(
                [
                    (lease.TAKE, names[:2], (token, 60000)),
                    (lease.FILL, names[:2], (token, other + b"v", 60000)),
                    (lease.TAKE_UNFENCED, names, (token, 60000)),
                    (lease.FENCE, names, (token, 60000)),
                    (lease.LIFT, names, (token,)),
                    (lease.TAKE_GROUP, names[1:2], (token, 60000)),
                    (lease.FILL_GROUP, names[:2], (token, token + b"v", 60000)),
                ]
            )
            assert await real.run(script, keys, args) == await twin.run(script, keys, args), script.name
            if random.random() < 0.2:
                gone = random.choice(names)
                await real.delete(gone)
                await twin.delete(gone)
            assert await real.mget(names[:2]) == await twin.mget(names[:2]), script.name
    finally:
        await real.close()
