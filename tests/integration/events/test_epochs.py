"""What becomes of positions when the log's server dies, forgets, or comes back with less."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from bas.events.v2.events_pb2 import GAP_REASON_EPOCH_CHANGED, CloudEvent, LoggedEvent
from chassis.errors import ApiError
from services.events.port import Broken, Entry, Placed
from services.events.store import RedisEventLog
from tests.support.eventually import eventually
from tests.support.redis_event_log import redis_event_log
from tests.support.valkey import Valkey

TENANT = "acme"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="bas-ev-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Valkey]:
    """A server with an append-only file, of this test alone."""
    made = Valkey(folder, "everysec")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def log(server: Valkey) -> AsyncIterator[RedisEventLog]:
    async with redis_event_log(server.url) as made:
        yield made


async def publish(log: RedisEventLog, *names: object) -> list[Placed]:
    return await log.publish(TENANT, [CloudEvent(id=str(name), source="/s", type="t") for name in names])


async def names(log: RedisEventLog) -> list[str]:
    extent = await log.extent(TENANT)
    found = await log.read(TENANT, extent.first, limit=100, max_bytes=10**6)
    return [LoggedEvent.FromString(each.logged).event.id for each in found]


async def reached(log: RedisEventLog) -> None:
    """The server is back, and this client has found it."""

    async def answers() -> bool:
        try:
            await log.extent(TENANT)
        except ApiError as problem:
            return problem.reason != "EVENTS_UNAVAILABLE"
        return True

    await eventually(answers, "the log answers", within=30)


@asynccontextmanager
async def followed(log: RedisEventLog) -> AsyncIterator[AsyncIterator[list[Entry] | Broken]]:
    async with aclosing(log.follow(log.shard_of(TENANT))) as following:  # type: ignore[type-var]
        assert await told(following) == []
        yield following


async def told(following: AsyncIterator[list[Entry] | Broken]) -> list[Entry] | Broken:
    async with asyncio.timeout(30):
        return await anext(following)


def cut(folder: Path, size: int) -> None:
    """The tail of the append-only file did not reach the disk."""
    (tail,) = (folder / "appendonlydir").glob("*.incr.aof")
    with tail.open("rb+") as file:
        file.truncate(size)


def written(folder: Path) -> int:
    (tail,) = (folder / "appendonlydir").glob("*.incr.aof")
    return tail.stat().st_size


async def test_killed_and_restarted_with_everything(server: Valkey, log: RedisEventLog) -> None:
    async with followed(log) as following:
        before = await publish(log, "a", "b")
        assert isinstance(await told(following), list)
        await server.kill()
        with pytest.raises(ApiError, match="does not answer"):
            await publish(log, "lost call")
        await server.start()
        await reached(log)
        (after,) = await publish(log, "c")
        assert after.position.sequence == 3
        assert after.position.epoch != before[0].position.epoch
        extent = await log.extent(TENANT)
        assert [extent.place(each.position) is not None for each in before] == [True, True]
        found = await log.read(TENANT, before[0].position, limit=10, max_bytes=10**6)
        assert [each.position.sequence for each in found] == [2, 3]
        # Nobody who follows is told of anything: nothing is missing.
        assert [each.position for each in await entries(following)] == [after.position]


async def entries(following: AsyncIterator[list[Entry] | Broken]) -> list[Entry]:
    found = await told(following)
    assert isinstance(found, list)
    return found


async def test_restarted_with_less_than_this_process_knows(server: Valkey, log: RedisEventLog, folder: Path) -> None:
    async with followed(log) as following:
        kept = await publish(log, "a")
        size = written(folder)
        (lost,) = await publish(log, "b")
        assert lost.position.sequence == 2
        await entries(following)
        await server.kill()
        cut(folder, size)
        await server.start()
        await reached(log)
        (again,) = await publish(log, "c")
        assert again.position.sequence == 2
        assert again.position.epoch != lost.position.epoch
        extent = await log.extent(TENANT)
        for position in (lost.position, kept[0].position):
            assert extent.why_not(position) == GAP_REASON_EPOCH_CHANGED
        while not isinstance(await told(following), Broken):
            pass
        assert await names(log) == ["a", "c"]
        assert (await publish(log, "b"))[0].duplicate is False


async def test_less_than_only_a_publisher_knows_who_has_died_too(server: Valkey, folder: Path) -> None:
    """Nobody is left who knows what is missing: its position is not taken for another's all the same."""
    async with redis_event_log(server.url) as log:
        (kept,) = await publish(log, "a")
        size = written(folder)
        (lost,) = await publish(log, "b")
    await server.kill()
    cut(folder, size)
    await server.start()
    async with redis_event_log(server.url) as log:
        (again,) = await publish(log, "c")
        assert again.position.sequence == lost.position.sequence
        extent = await log.extent(TENANT)
        assert extent.why_not(lost.position) == GAP_REASON_EPOCH_CHANGED
        assert extent.place(kept.position) is not None


async def test_everything_is_restarted_in_good_order(server: Valkey) -> None:
    async with redis_event_log(server.url) as log:
        before = await publish(log, "a", "b")
    await server.restart()
    async with redis_event_log(server.url) as log:
        extent = await log.extent(TENANT)
        assert extent.place(before[1].position) is not None
        await publish(log, "c")
        found = await log.read(TENANT, before[0].position, limit=10, max_bytes=10**6)
        assert [each.position.sequence for each in found] == [2, 3]
        assert (await publish(log, "b"))[0].duplicate is True


@pytest.mark.parametrize("alive", [True, False])
async def test_an_older_copy_of_the_folder(server: Valkey, folder: Path, *, alive: bool) -> None:
    async with redis_event_log(server.url) as log:
        (old,) = await publish(log, "a")
        shutil.copytree(folder / "appendonlydir", folder / "copy")
        (newer,) = await publish(log, "b")
        await server.restart()
        await reached(log)
        (newest,) = await publish(log, "c")
        assert (await log.extent(TENANT)).place(newer.position) is not None
        await server.kill()
        shutil.rmtree(folder / "appendonlydir")
        (folder / "copy").rename(folder / "appendonlydir")
        await server.start()
        if alive:
            await reached(log)
            await check_older_copy(log, old, newer, newest, alive=True)
    if not alive:
        async with redis_event_log(server.url) as log:
            await check_older_copy(log, old, newer, newest, alive=False)


async def check_older_copy(log: RedisEventLog, old: Placed, newer: Placed, newest: Placed, *, alive: bool) -> None:
    placed = await publish(log, "x", "y")
    assert [each.position.sequence for each in placed] == [2, 3]
    extent = await log.extent(TENANT)
    for lost in (newer, newest):
        assert extent.why_not(lost.position) == GAP_REASON_EPOCH_CHANGED
    # Where somebody knows of what came after it, even the part that is there is told of.
    assert (extent.place(old.position) is None) is alive


async def test_restarted_empty(own_valkey: Valkey) -> None:
    async with redis_event_log(own_valkey.url) as log, followed(log) as following:
        (old,) = await publish(log, "a")
        await entries(following)
        await own_valkey.kill()
        await own_valkey.start()
        await reached(log)
        assert isinstance(await told(following), Broken)
        extent = await log.extent(TENANT)
        assert extent.last.sequence == 0
        assert extent.why_not(old.position) == GAP_REASON_EPOCH_CHANGED
        (new,) = await publish(log, "a")
        assert [each.position for each in await entries(following)] == [new.position]


async def test_flushed_while_it_is_followed_and_nothing_is_published(server: Valkey, log: RedisEventLog) -> None:
    async with followed(log) as following:
        (old,) = await publish(log, "a")
        await entries(following)
        server.command("FLUSHALL")
        assert isinstance(await told(following), Broken)
        assert (await log.extent(TENANT)).why_not(old.position) == GAP_REASON_EPOCH_CHANGED


async def test_flushed_and_filled_again_beyond_what_was_there(server: Valkey) -> None:
    async with redis_event_log(server.url) as one, redis_event_log(server.url) as other, followed(one) as following:
        (old,) = await publish(one, "a")
        await entries(following)
        server.command("FLUSHALL")
        for name in range(5):
            await publish(other, name)
        assert isinstance(await told(following), Broken)
        assert (await one.extent(TENANT)).why_not(old.position) == GAP_REASON_EPOCH_CHANGED


async def test_processes_that_know_of_different_losses_come_to_rest(server: Valkey) -> None:
    async with redis_event_log(server.url) as one, redis_event_log(server.url) as other:
        await publish(one, "a")
        server.command("FLUSHALL")
        await publish(other, "b")
        server.command("FLUSHALL")
        await publish(one, "c")
        for _ in range(3):
            await publish(other, "d")
            await publish(one, "e")
        epochs = {(await log.extent(TENANT)).last.epoch for _ in range(3) for log in (one, other)}
        assert len(epochs) == 1


async def test_another_process_that_knows_more_breaks_what_was_taken_over(server: Valkey, folder: Path) -> None:
    async with redis_event_log(server.url) as one, redis_event_log(server.url) as other:
        (kept,) = await publish(one, "a")
        await reached(other)
        size = written(folder)
        await publish(one, "b")
        await server.kill()
        cut(folder, size)
        await server.start()
        await reached(other)
        (taken_over,) = await publish(other, "c")
        assert (await other.extent(TENANT)).place(kept.position) is not None
        async with followed(other) as following:
            await reached(one)
            assert isinstance(await told(following), Broken)
        assert (await other.extent(TENANT)).why_not(taken_over.position) == GAP_REASON_EPOCH_CHANGED
        assert await names(other) == ["a", "c"]


async def test_a_tenant_that_was_idle_over_several_restarts(server: Valkey) -> None:
    async with redis_event_log(server.url) as log:
        (old,) = await publish(log, "a")
        nothing = (await log.extent("empty")).last
    for step in range(3):
        await server.restart()
        async with redis_event_log(server.url) as log:
            given_out = (await log.extent(TENANT)).last
            assert (await log.extent(TENANT)).place(old.position) is not None
            await log.publish(
                next(f"t{n}" for n in range(99) if log.shard_of(f"t{n}") == log.shard_of(TENANT)),
                [CloudEvent(id=str(step), source="/s", type="t")],
            )
            assert (await log.extent(TENANT)).place(given_out) is not None
            assert (await log.extent("empty")).place(nothing) is not None
    async with redis_event_log(server.url) as log:
        await publish(log, "b")
        extent = await log.extent(TENANT)
        assert extent.place(old.position) is not None
        assert extent.place(given_out) is not None


@pytest.mark.parametrize("then", ["resumed", "killed"])
async def test_what_was_sent_to_a_stalled_server_is_published_once(server: Valkey, then: str) -> None:
    async with redis_event_log(server.url) as patient, redis_event_log(server.url, op_timeout=0.2) as log:
        await publish(patient, "a")
        await reached(log)
        server.pause()
        with pytest.raises(ApiError) as failure:
            await publish(log, "b")
        assert (failure.value.reason, failure.value.retry_after) == ("EVENTS_UNAVAILABLE", 1.0)
        if then == "resumed":
            server.resume()
        else:
            await server.kill()
            await server.start()
        await reached(patient)
        (again,) = await publish(patient, "b")
        assert again.position.sequence == 2
        assert await names(patient) == ["a", "b"]
