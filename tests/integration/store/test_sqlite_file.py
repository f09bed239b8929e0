"""The store's file under kill -9, full disks, damage, newer releases and second openers: real files, real processes."""

import asyncio
import os
import random
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chassis.clock import FakeClock, SystemClock
from chassis.config import Seconds
from chassis.store.expiry import BATCH, INTERVAL, PAUSE
from chassis.store.port import (
    Create,
    Fields,
    Filter,
    Index,
    Key,
    Op,
    Order,
    Put,
    Query,
    Schema,
    StoreCorrupt,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    UndeclaredQuery,
)
from chassis.store.sqlite import SqliteStore
from chassis.store.writer import MAX_QUEUE
from tests.integration.store.committer import BUDGET, SCHEMA, SIZE
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}


async def opened(path: Path, schema: Schema = SCHEMA) -> SqliteStore:
    return await SqliteStore.open(path, schema, clock=SystemClock(), budget=BUDGET)


def key(name: str, collection: str = "batches") -> Key:
    return Key("t", collection, name)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_acknowledged_survives_kill_9_and_no_batch_is_torn(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.db"
    acknowledged: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store.committer", str(path)],
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        enough = random.Random(seed).randrange(20, 400)
        while len(acknowledged) < enough:
            acknowledged.append(process.stdout.readline().strip())
        process.kill()
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    asyncio.run(_check_survivors(path, acknowledged))


async def _check_survivors(path: Path, acknowledged: list[str]) -> None:
    store = await opened(path)
    for batch in acknowledged:
        assert await store.count(Query("t", "batches", (Filter("batch", Op.EQ, batch),))) == SIZE, batch
    assert await store.count(Query("t", "batches")) % SIZE == 0
    await store.commit([Create(key("after"), {})])
    await store.close()


async def test_a_full_store_refuses_writes_whole_and_goes_on(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db")
    await store.commit([Create(key("small"), {"batch": "b"})])
    store._file.writer.execute("PRAGMA max_page_count=100")
    large = [Create(key(f"large{n}"), {"batch": "x" * 100_000}) for n in range(10)]
    outcomes = await asyncio.gather(
        store.commit([Create(key("one"), {})]), store.commit(large), store.commit([Create(key("two"), {})]),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(outcome).__name__ for outcome in outcomes] == ["Committed", "StoreFull", "Committed"]
    assert await store.get_many([write.key for write in large]) == [None] * 10
    assert await store.count(Query("t", "batches", (Filter("batch", Op.EQ, "b"),))) == 1
    with pytest.raises(StoreFull):
        await store.commit(large)
    store._file.writer.execute("PRAGMA max_page_count=100000")
    await store.commit(large)
    await store.close()


async def test_a_file_that_may_not_grow_refuses_writes_whole(tmp_path: Path) -> None:
    """A limit on the size of files is SQLITE_IOERR_WRITE, as a broken disk is: SQLite does not tell them apart. Only a
    disk without space is StoreFull (test_processes.py)."""
    path = tmp_path / "store.db"
    store = await opened(path)
    await store.commit([Create(key("small"), {"batch": "b"})])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        large = [Create(key(f"large{n}"), {"batch": "x" * 100_000}) for n in range(10)]
        with pytest.raises(StoreUnavailable, match="SQLITE_IOERR_WRITE"):
            await store.commit(large)
        assert await store.get_many([write.key for write in large]) == [None] * 10
        assert await store.get(key("small")) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.commit(large)
    await store.close()
    store = await opened(path)
    assert await store.count(Query("t", "batches")) == 11
    await store.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 50, b"SQLite format 3\x00" + b"\x7f" * 8000])
async def test_what_is_not_a_database_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"store\.db"):
        await opened(path)
    assert path.read_bytes() == content


async def test_a_damaged_file_is_found_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    for n in range(20):
        await store.commit([Create(key(f"{n}-{part}"), {"batch": "x" * 500}) for part in range(50)])
    await store.close()
    damaged = bytearray(path.read_bytes())
    for page in range(4096 * 6, len(damaged) - 4096, 4096 * 3):
        damaged[page : page + 2000] = b"\xa5" * 2000
    path.write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match="damaged"):
        await opened(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("pragma", "message"), [("user_version=2", "newer release"), ("application_id=7", "another program")]
)
async def test_a_file_of_another_release_or_program_is_not_touched(tmp_path: Path, pragma: str, message: str) -> None:
    path = tmp_path / "store.db"
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA {pragma}")
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=message):
        await opened(path)
    assert path.read_bytes() == before


async def test_only_one_opener(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    with pytest.raises(StoreUnavailable, match=f"in use by process {os.getpid()}"):
        await opened(path)
    await store.commit([Create(key("a"), {})])
    await store.close()
    store = await opened(path)
    assert await store.get(key("a")) is not None
    await store.close()


async def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="BAS_DATA_DIR"):
        await opened(tmp_path / "file" / "store.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_says_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnavailable, match="writable"):
        asyncio.run(opened(tmp_path / "store.db"))


async def test_indexes_follow_the_declarations_of_the_release(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    await store.commit([Create(key(f"{n}"), {"batch": n % 2, "rank": -n}) for n in range(10)])
    await store.close()
    ranked = Schema((Index("batches", ("batch",), (Order("rank"),)),))
    query = Query("t", "batches", (Filter("batch", Op.EQ, 1),), (Order("rank"),))
    store = await opened(path, ranked)
    assert [document.key.id for document in await store.query(query)] == ["9", "7", "5", "3", "1"]
    await store.commit([Put(key("0"), {"batch": 1, "rank": 0})])
    await store.close()
    store = await opened(path)
    assert await store.count(replace(query, order=())) == 6
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        numbers = {number for (number,) in connection.execute("SELECT number FROM entries")}
        assert numbers == {number for (number,) in connection.execute("SELECT number FROM indexes")}
        assert len(numbers) == 1


async def test_an_order_and_its_reverse_are_one_index_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    up, down = (Order("rank"), Order("n", descending=True)), (Order("rank", descending=True), Order("n"))
    store = await opened(path, Schema((Index("batches", (), up), Index("batches", (), down))))
    await store.commit([Create(key(f"{n}"), {"rank": n // 2, "n": n}) for n in range(6)])
    names = ["1", "0", "3", "2", "5", "4"]
    for order, expected in ((up, names), (down, names[::-1])):
        assert [each.key.id for each in await store.query(Query("t", "batches", (), order))] == expected
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (6,)
    store = await opened(path, Schema((Index("batches", (), up),)))
    with pytest.raises(UndeclaredQuery):
        await store.query(Query("t", "batches", (), down))
    await store.close()


async def test_versions_and_times_go_on_after_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path, SCHEMA, clock=clock, budget=BUDGET)
    first = await store.commit([Create(key("a"), {})])
    await store.close()
    clock.step_wall(-3600)
    store = await SqliteStore.open(path, SCHEMA, clock=clock, budget=BUDGET)
    second = await store.commit([Put(key("a"), {})])
    assert second.commit_time == first.commit_time + timedelta(microseconds=1)
    assert second.versions != first.versions
    await store.close()


async def test_expired_documents_are_swept_in_bounded_steps(tmp_path: Path) -> None:
    clock = FakeClock()
    schema = Schema((Index("passing", ("n",)),), {"passing": "expires"})
    store = await SqliteStore.open(tmp_path / "store.db", schema, clock=clock, budget=BUDGET)
    for n in range(10):
        fields: Fields = {"n": n, "expires": clock.now() + timedelta(seconds=n)}
        await store.commit([Create(Key(f"t{n % 2}", "passing", f"{n}"), fields)])
    await store.commit([Create(Key("t0", "passing", "stays"), {"n": 0, "expires": "never"})])
    await clock.advance(7)
    assert await store.sweep_expired(5) == 5
    assert await store.sweep_expired(5) == 2
    assert await store.sweep_expired(5) == 0
    left = [document.key.id for tenant in ("t0", "t1") for document in await store.query(Query(tenant, "passing"))]
    assert left == ["8", "stays", "7", "9"]
    assert await store.count(Query("t0", "passing", (Filter("n", Op.EQ, 2),))) == 0
    await store.close()


async def test_the_store_removes_what_has_expired_by_itself(tmp_path: Path) -> None:
    clock = FakeClock()
    schema = Schema((), {"passing": "expires"})
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path, schema, clock=clock, budget=BUDGET)
    ends = clock.now() + timedelta(seconds=INTERVAL / 2)
    for first in range(0, 2 * BATCH + 10, 250):
        names = range(first, min(first + 250, 2 * BATCH + 10))
        await store.commit([Create(key(f"{n}", "passing"), {"expires": ends}) for n in names])
    await store.commit([Create(key("stays", "passing"), {"expires": ends + timedelta(days=1)})])

    async def left() -> int:
        return await store.count(Query("t", "passing"))

    async def swept() -> None:
        """The sweep works on a real thread: only once it sleeps again has the next step of the clock a meaning."""
        await eventually(lambda: clock.sleepers == 1, "the sweep sleeps")

    # A sweep that fails is made up for by the next.
    await swept()
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        await clock.advance(INTERVAL + 1)
        await swept()
        blocker.execute("ROLLBACK")
    assert await left() == 2 * BATCH + 11
    await clock.advance(INTERVAL)
    await eventually(lambda: _is(left, BATCH + 11), "the first batch")
    await swept()
    await clock.advance(PAUSE)
    await eventually(lambda: _is(left, 11), "the second")
    await swept()
    await clock.advance(PAUSE)
    await eventually(lambda: _is(left, 1), "the rest")
    await store.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "store-expiry"]


async def _is(counted: Callable[[], Awaitable[int]], expected: int) -> bool:
    return await counted() == expected


async def test_a_file_that_another_program_writes_is_unavailable_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.commit([Create(key("a"), {})])
        blocker.execute("ROLLBACK")
    await store.commit([Create(key("a"), {})])
    await store.close()


async def test_a_commit_is_withdrawn_while_it_waits_and_may_be_applied_once_begun(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    budget = replace(BUDGET, write_timeout=Seconds(0.05))
    store = await SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=budget)
    disk = threading.Event()
    stalled = store._thread.submit(disk.wait)
    begun = asyncio.create_task(store.commit([Create(key("begun"), {})]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(store.commit([Create(key(f"w{n}"), {})])) for n in range(3)]
    outcomes = await asyncio.gather(begun, *waiting, return_exceptions=True)
    assert all(isinstance(outcome, StoreTimeout) for outcome in outcomes)
    disk.set()
    stalled.result()

    async def lands() -> bool:  # in this little time, when the machine is not too busy
        try:
            await store.commit([Put(key("later"), {})])
        except StoreTimeout:
            return False
        return True

    await eventually(lands, "a commit once the disk is back")
    assert [document.key.id for document in await store.query(Query("t", "batches"))] == ["begun", "later"]
    await store.close()


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db")
    commits = [asyncio.create_task(store.commit([Put(key(f"{n}"), {})])) for n in range(MAX_QUEUE + 10)]
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
    assert len(refused) == 10
    assert await store.count(Query("t", "batches")) == MAX_QUEUE
    await store.close()


async def test_a_slow_query_is_interrupted_and_its_connection_used_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    for n in range(20):
        await store.commit([Create(key(f"{n}-{part}"), {"batch": part % 2, "n": n}) for part in range(500)])
    await store.close()
    budget = replace(BUDGET, read_timeout=Seconds(0.01))
    store = await SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=budget)
    for _ in range(6):
        with pytest.raises(StoreTimeout):
            await store.query(Query("t", "batches", (Filter("batch", Op.NE, 7),), limit=10_000))

    async def reads() -> bool:  # in this little time, when the machine is not too busy
        try:
            return await store.get(key("0-0")) is not None
        except StoreTimeout:
            return False

    await eventually(reads, "a short read")
    await store.close()
