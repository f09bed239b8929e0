"""Followers of events while the platform's processes are killed, stopped and emptied: nothing is lost or doubled, or they
are told."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.browsers import all_of, stalled
from tests.support.eventually import eventually
from tests.support.platform import Platform, new_platform, ready
from tests.support.publishers import Storm, Tenant, tenant
from tests.support.valkey import Valkey, new_valkey

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc"),
]

BROWSERS = 100
HURRY = 0.1


@dataclass
class World:
    """One platform for all of these tests, on a Valkey of its own."""

    platform: Platform
    valkey: Valkey
    _tenants: list[Tenant] = field(default_factory=list)
    _made: int = 0

    def tenant(self, name: str) -> Tenant:
        self._made += 1
        made = tenant(self.platform, f"{name}{self._made}")
        self._tenants.append(made)
        return made

    def pid(self, part: str) -> int:
        return self.platform.parts()[part]

    async def another(self, part: str, pid: int) -> None:
        """Wait for one that is not `pid`, and for all being well."""
        await eventually(lambda: self.platform.parts().get(part, pid) != pid, f"another {part}", within=120.0)
        await ready(self.platform.gateway)

    async def forget(self) -> None:
        await asyncio.gather(*(each.close() for each in self._tenants))
        self._tenants.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(new_valkey("everysec"))
        platform = await stack.enter_async_context(
            new_platform(
                BAS_REDIS_URL=valkey.url,
                BAS_GATEWAY_STREAM_RETRY="1s",
                BAS_GATEWAY_DRAIN="6s",  # a busy machine is to get round to all goodbyes
                BAS_BREAKER_HALF_OPEN_AFTER="1s",
                BAS_GATEWAY_STREAM_HEARTBEAT="1s",
                BAS_GATEWAY_STREAM_BUFFER="65536",
            )
        )
        await platform.start()
        yield World(platform, valkey)


@pytest_asyncio.fixture(loop_scope="module")
async def world(running: World) -> AsyncIterator[World]:
    yield running
    await running.forget()


async def crowd(world: World, *, browsers: int = BROWSERS) -> tuple[Tenant, Tenant]:
    """Two tenants, one with many browsers, some of which want one type only, and one with a few; all of them listen."""
    big, small = world.tenant("big"), world.tenant("small")
    addresses = [world.platform.gateway]
    for number in range(browsers):
        if number % 4:
            big.open(addresses, hurry=HURRY)
        else:
            big.open(addresses, "?types=order.*", hurry=HURRY, wants=lambda kind: kind.startswith("order."))
    for _ in range(5):
        small.open(addresses, hurry=HURRY)
    for each in (big, small):
        await each.listening()
    return big, small


async def content(*tenants: Tenant, gaps: bool = False) -> None:
    """Nothing was lost, doubled or out of order, and a gap was announced only where one may be."""
    for each in tenants:
        await each.told()
        verdict = each.verdict()
        assert verdict.faults == 0, (verdict, each.browsers[0].reading)
        assert verdict.delivered > len(each.browsers)
        if not gaps:
            assert verdict.gaps == 0, verdict


async def test_the_events_service_killed_under_many_browsers(world: World) -> None:
    big, small = await crowd(world)
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        killed = world.pid("events")
        os.kill(killed, signal.SIGKILL)
        await world.another("events", killed)
        await storm.more(30)
        again = world.pid("events")
        os.kill(again, signal.SIGTERM)
        await world.another("events", again)
        await storm.more(30)
    await content(big, small)
    assert {browser.connections for each in (big, small) for browser in each.browsers} == {1}


async def test_valkey_killed_and_started_again(world: World) -> None:
    big, small = await crowd(world, browsers=20)
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        await world.valkey.kill()
        await world.valkey.start()
        await storm.more(30)
    # Its file may lack what it was last given, and then that is told.
    await content(big, small, gaps=True)
    assert {browser.connections for browser in big.browsers} == {1}


async def test_valkey_stalled(world: World) -> None:
    big, small = await crowd(world, browsers=20)
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        world.valkey.pause()
        try:
            before = [browser.bytes for browser in big.browsers]
            await eventually(lambda: min(big.refusals, small.refusals) > 0, "a refusal", within=60.0)
            await eventually(
                lambda: all(now.bytes > then for now, then in zip(big.browsers, before, strict=True)), "heartbeats"
            )
        finally:
            world.valkey.resume()
        await storm.more(30)
    await content(big, small)
    assert {browser.connections for browser in big.browsers} == {1}


async def test_a_log_that_is_emptied(world: World) -> None:
    big, small = await crowd(world, browsers=20)
    away = big.open([world.platform.gateway], hurry=HURRY)
    await big.listening()
    await big.told()
    await away.close()
    before = away.cursor
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        world.valkey.command("FLUSHALL")
        await storm.more(30)
        away.open()  # with a position of a log that is no more
        await eventually(lambda: away.cursor not in ("", before), "a new position")
        await storm.more(10)
    await content(big, small, gaps=True)
    for browser in (*big.browsers, *small.browsers):
        assert [gap.reason for gap in browser.gaps] == ["GAP_REASON_EPOCH_CHANGED"]


async def test_a_log_of_some_time_ago(world: World) -> None:
    big, small = await crowd(world, browsers=20)
    await big.told()
    await small.told()
    world.valkey.command("BGREWRITEAOF")
    await eventually(lambda: b"aof_rewrite_in_progress:0" in _persistence(world.valkey), "the file is written")
    folder, copy = world.valkey.folder / "appendonlydir", world.valkey.folder / "earlier"
    shutil.copytree(folder, copy)
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        await world.valkey.kill()
        shutil.rmtree(folder)
        copy.rename(folder)
        await world.valkey.start()
        await storm.more(30)
    await content(big, small, gaps=True)
    for browser in (*big.browsers, *small.browsers):
        assert {gap.reason for gap in browser.gaps} == {"GAP_REASON_EPOCH_CHANGED"}


async def test_browsers_of_a_gateway_that_stops_come_back_spread_over_time(world: World) -> None:
    big, small = await crowd(world)
    async with Storm(big, small, every=0.02) as storm:
        await storm.more(30)
        stopped = world.pid("gateway")
        os.kill(stopped, signal.SIGTERM)
        await all_of(big.browsers, lambda each: each.goodbyes != [], "all are told")
        await world.another("gateway", stopped)
        await big.listening()
        await storm.more(30)
    await content(big, small)
    goodbyes = [browser.goodbyes[0] for browser in big.browsers]
    assert {goodbye.reason for goodbye in goodbyes} == {"DRAINING"}
    retries = sorted(goodbye.retry for goodbye in goodbyes)
    assert retries[0] >= 0.5
    assert retries[-1] <= 1.5
    # 100 draws from a whole second: never in one half of it.
    assert retries[len(retries) // 10] < 0.8
    assert retries[-len(retries) // 10] > 1.2
    times = sorted(goodbye.time for goodbye in goodbyes)
    assert times[-1] - times[0] > 0.5, "all at once"


async def test_readers_that_do_not_read_cost_nothing_and_nobody(world: World) -> None:
    one = world.tenant("big")
    addresses = [world.platform.gateway]
    for _ in range(10):
        one.open(addresses, hurry=HURRY)
    drips: list[asyncio.Task[None]] = []
    sockets = []
    try:
        sockets = [await stalled(world.platform.gateway, one.token) for _ in range(50)]
        drips = [asyncio.create_task(drip(sock)) for sock in sockets[:3]]
        await one.listening()
        pid = world.pid("gateway")
        await one.publish(50, data="x" * 1000)
        await one.told()
        before = _resident(pid)
        for _ in range(8):
            await one.publish(40, data="x" * 30_000)
        await content(one)
        # 50 times 10 MB were not read: what is kept of it is bounded by each one's buffer, of 64 KiB and what the kernel has.
        assert _resident(pid) - before < 48 * 1024 * 1024
    finally:
        for task in drips:
            task.cancel()
        await asyncio.gather(*drips, return_exceptions=True)
        for sock in sockets:
            sock.close()


async def test_a_storm_while_browsers_come_and_go(world: World) -> None:
    big, small = await crowd(world, browsers=40)
    async with Storm(big, small, big, batch=lambda: 20) as storm:
        for turn in range(12):
            for browser in big.browsers[turn % 4 :: 4]:
                browser.cut()
            await storm.more(100)
    await big.listening()
    await content(big, small)
    assert min(browser.connections for browser in big.browsers) > 1


async def drip(sock: socket.socket) -> None:
    """Take one byte after the other, without hurry."""
    loop = asyncio.get_running_loop()
    while True:
        if not await loop.sock_recv(sock, 1):
            return
        await asyncio.sleep(0.005)


def _persistence(valkey: Valkey) -> bytes:
    with suppress(OSError):
        return bytes(str(valkey.command("INFO", "persistence")).replace(" ", "").replace("'", ""), "utf-8")
    return b""


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
