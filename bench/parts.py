"""The parts by themselves: configuration, wiring, the cache's hot path, the store's commits. In this process."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from redis.asyncio import Redis

from bas.devices.v2 import devices_service_pb2 as rpc
from bench.devices import device
from bench.load import closed
from bench.report import Report
from chassis import config
from chassis.api.validation import compile_validator
from chassis.cache.client import open_cache
from chassis.cache.lease import Lives
from chassis.cache.port import Loaded
from chassis.cache.readthrough import LeaseReadThrough
from chassis.clock import SystemClock
from chassis.context import Caller
from chassis.module import Parts
from chassis.resilience.breaker import BreakerOpen
from chassis.resilience.breakers import Breakers
from chassis.resilience.retry import Retries
from chassis.store.port import Create, Fields, Key, Schema
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from gateway import module as gateway
from gateway.transcoding.codec import load_codec
from launcher.valkey import EmbeddedValkey
from services.devices import module as devices

_CALLERS = 64


class _Nobody:
    """Wiring verifies nothing."""

    def verify(self, authorization: str) -> Caller:
        raise LookupError(authorization)


def _times(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """p50 and p99 of `work`, in seconds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    taken.sort()
    return taken[rounds // 2], taken[int(rounds * 0.99)]


def configuration(report: Report) -> None:
    """Loading the budgets, after import, with a few overrides in the environment."""
    environ = dict(os.environ) | {"BAS_DEVICES_PORT": "1", "BAS_REDIS_OP_TIMEOUT": "12ms", "BAS_LOG_LEVEL": "debug"}
    half, most = _times(lambda: config.load(environ), 1000)
    report.below("configuration load, p99", most * 1e3, 1.0, note=f"p50 {half * 1e3:.3f} ms")


def breaker(report: Report) -> None:
    """What a call pays for its breaker while that is closed, open, and for the retry budget."""
    clock = SystemClock()
    made = Breakers(config.Breaker(), clock, Metrics())("bench")
    retries = Retries(config.Retry(), clock, lambda: 0.5)

    def closed_one() -> None:
        for _ in range(1000):
            made.admit()(True)

    def open_one() -> None:
        for _ in range(1000):
            with suppress(BreakerOpen):
                made.admit()

    def budget() -> None:
        for _ in range(1000):
            retries.called(clock.monotonic())

    half, _ = _times(closed_one, 50)
    report.below("breaker, closed, a call", half * 1e3, 3.0, unit="us")
    half, _ = _times(budget, 50)
    report.tells("retry budget, a call", half * 1e3, "us")
    for _ in range(config.Breaker().failures):
        made.admit()(False)
    half, _ = _times(open_one, 50)
    report.tells("breaker, open, a refusal", half * 1e3, "us")


async def wiring(report: Report, folder: Path) -> None:
    """Building the devices service and the gateway from a loaded configuration."""
    settings = config.Config()
    clock = SystemClock()
    store = await SqliteStore.open(folder / "wiring.db", devices.SPEC.schema, clock=clock, budget=settings.store)
    cache = open_cache(config.Redis(url="redis://127.0.0.1:1"), Metrics(), clock=clock)

    def service() -> object:
        parts = Parts(clock, store, cache, Metrics(), os.urandom, lambda purpose: purpose.encode().ljust(32, b"\0"))
        return devices.SPEC.build(settings, parts)

    half, most = _times(service, 200)
    report.below("wiring of the devices service, p99", most * 1e3, 2.0, note=f"p50 {half * 1e3:.3f} ms")
    schema = gateway.load_schema()
    codec = load_codec(schema.files)

    def edge() -> object:
        return gateway.build(
            settings,
            clock=clock,
            verifier=_Nobody(),
            metrics=Metrics(),
            upstreams={},
            random_bytes=os.urandom,
            schema=schema,
            codec=codec,
        )

    half, most = _times(edge, 50)
    report.below(
        "wiring of the gateway, p99", most * 1e3, 3.0, note=f"p50 {half * 1e3:.3f} ms, descriptors read before"
    )
    await cache.close()
    await store.close()


def validation(report: Report) -> None:
    """Checking the field rules of requests."""
    get = rpc.GetDeviceRequest(device_id="d1")
    create = rpc.CreateDeviceRequest(device=device("d1"))
    for message in (get, create):
        check = compile_validator(message.DESCRIPTOR)

        def many(check: Callable[[object], None] = check, message: object = message) -> None:  # type: ignore[assignment]
            for _ in range(1000):
                check(message)

        half, _ = _times(many, 50)
        report.tells(f"validate {message.DESCRIPTOR.name}", half * 1e3, "us")


async def cache(report: Report, folder: Path) -> None:
    """The pipelined connection beside redis-py, alone and in batches, and a read-through hit."""
    valkey = EmbeddedValkey(folder / "valkey-parts")
    await valkey.start()
    client = open_cache(config.Redis(url=valkey.url, op_timeout=config.Seconds(1.0)), Metrics())
    plain = Redis.from_url(valkey.url, max_connections=_CALLERS)
    value = rpc.CreateDeviceRequest(device=device("d1")).SerializeToString()
    keys = [f"bench:{number}" for number in range(100)]
    try:
        await _connected(client.get)
        for key in keys:
            await client.set(key, value, ttl=600)
        lives = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)
        through = LeaseReadThrough(client, "bench", lives, Metrics())

        async def load() -> Loaded:
            return Loaded(value, "1")

        async def ours(number: int) -> None:
            await client.get(keys[number])

        async def theirs(number: int) -> None:
            await plain.get(keys[number])

        async def hit(number: int) -> None:
            await through.get(f"t/{number}", load)

        async def batch(_number: int) -> None:
            await client.mget(keys)

        base = await closed(theirs, callers=_CALLERS, seconds=1.0)
        report.load("cache GET, redis-py, 64 callers", base, {})
        fast = await closed(ours, callers=_CALLERS, seconds=1.0)
        report.load("cache GET, pipelined, 64 callers", fast, {})
        report.tells("cache GET, pipelined / redis-py", fast.rate / base.rate, "x")
        found = await closed(hit, callers=_CALLERS, seconds=1.0)
        report.load("read-through hit, 64 callers", found, {})
        report.below(
            "read-through hit, 1 caller, p99", (await closed(hit, callers=1, seconds=1.0)).percentile(0.99) * 1e3, 5.0
        )
        batches = await closed(batch, callers=4, seconds=1.0)
        report.tells("cache batch, 100 keys a MGET", batches.rate * 100, "keys/s")
        await through.close()
    finally:
        await client.close()
        await plain.aclose()
        await valkey.stop()


async def _connected(get: Callable[[str], Awaitable[object]]) -> None:
    """The client connects behind the first call; wait until one is answered."""
    for _ in range(200):
        try:
            await get("bench:ready")
        except Exception:  # noqa: BLE001 - not connected yet, whatever it says
            await asyncio.sleep(0.02)
        else:
            return
    raise RuntimeError("the cache client did not connect")


async def store(report: Report, folder: Path) -> None:
    """Durable commits, one at a time and 64 at once, and point reads."""
    settings = config.Store()
    kept = await SqliteStore.open(folder / "commits.db", Schema(), clock=SystemClock(), budget=settings)
    fields: Fields = {"body": device("d1").SerializeToString(), "name": "Boiler 7", "status": "ONLINE"}
    numbers = count()

    async def commit(_number: int) -> None:
        await kept.commit([Create(Key("t", "devices", f"d{next(numbers)}"), fields)])

    async def get(number: int) -> None:
        await kept.get(Key("t", "devices", f"d{number}"))
        # A quick read answers without letting others run; a server's handlers do that between calls.
        await asyncio.sleep(0)

    alone = await closed(commit, callers=1, seconds=1.0)
    report.load("store commit, 1 caller", alone, {})
    report.below("store commit, 1 caller, p99", alone.percentile(0.99) * 1e3, 70.0)
    many = await closed(commit, callers=_CALLERS, seconds=1.0)
    report.load("store commit, 64 callers, grouped", many, {})
    report.tells("store commit, grouped / alone", many.rate / alone.rate, "x")
    reads = await closed(get, callers=_CALLERS, seconds=1.0)
    report.load("store get, 64 callers", reads, {})
    report.below("store get, 1 caller, p99", (await closed(get, callers=1, seconds=1.0)).percentile(0.99) * 1e3, 50.0)
    await kept.close()
