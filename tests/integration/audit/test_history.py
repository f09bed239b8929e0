"""Many appenders, sequencers that are paused, cut off and killed at any step: the log is one, whole, and what was signed."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import pytest

from bas.audit.v2.audit_pb2 import Entry
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.port import Create, Put, StoreTimeout, StoreUnavailable, Update, Write
from services.audit.records import BATCHES
from tests.integration.audit.calls import DURABLE, INTEGRATED, SEQUENCED, append, append_all, checkpoint
from tests.integration.audit.conftest import Make, Replica, acting, running, settings
from tests.integration.audit.history import Broken, check

TENANT = "acme"
APPENDERS = 6
ROUNDS = 12


class Trouble:
    """What happens to the commits of one replica, by a seed: some are refused, some are applied and not answered, some
    wait until others have done the same, as those of a process that is stopped and continued do."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._paused: list[asyncio.Event] = []
        self.on = True

    async def before(self, writes: Sequence[Write]) -> None:
        chance = self._random.random()
        if not self.on:
            return
        if chance < 0.08:
            raise StoreUnavailable
        if chance < 0.25:
            await self._pause()

    async def after(self, writes: Sequence[Write]) -> None:
        if self.on and self._random.random() < 0.08:
            raise StoreTimeout

    async def _pause(self) -> None:
        for _ in range(self._random.randint(1, 60)):
            await asyncio.sleep(0.001)


class History:
    """What was promised so far."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.sequences: dict[str, int] = {}
        self.seen: list[tuple[int, bytes]] = []

    async def appender(self, audit: Replica, name: int, seed: int) -> None:
        """Appends, and appends again what it has had no answer for."""
        random = Random(seed)
        with acting(TENANT):
            for number in range(ROUNDS):
                keys = [f"{name}.{number}.{each}" for each in range(random.choice([1, 1, 3, 40]))]
                level = random.choice([DURABLE, DURABLE, SEQUENCED])
                for _ in range(100):
                    try:
                        results = await append_all(audit, *keys, level=level)
                    except ApiError:
                        continue
                    failed = [each for each in results if each.HasField("error")]
                    for each in results:
                        if each.HasField("appended"):
                            self._acknowledge(each.appended.entry)
                    if not failed:
                        break

    def _acknowledge(self, entry: Entry) -> None:
        self.acknowledged[entry.entry_id] = entry.idempotency_key
        told = entry.HasField("sequence")
        if told and self.sequences.setdefault(entry.entry_id, entry.sequence) != entry.sequence:
            raise Broken(f"{entry.entry_id} was told two places")

    async def watcher(self, audit: Replica, stop: asyncio.Event) -> None:
        """Notes every checkpoint that is shown."""
        while not stop.is_set():
            with acting(TENANT):
                try:
                    shown = await checkpoint(audit)
                except ApiError:
                    shown = None
            if shown is not None:
                self.seen.append((shown.tree_size, shown.root_hash))
            await asyncio.sleep(0.02)


async def made(
    replica: Make, seed: int, spoil: Callable[[Replica], object] = lambda _: None
) -> tuple[History, Replica]:
    """A history of two replicas with all their loops, in trouble; in the end, all that waits is sequenced and signed."""
    random, history, stop = Random(seed), History(), asyncio.Event()
    config = settings(sequence_interval=0.01, sequence_batch=50, checkpoint_interval=0.1)
    replicas = [replica(config, by=SystemClock()) for _ in range(2)]
    trouble = [Trouble(random.getrandbits(32)) for _ in replicas]
    for each, its in zip(replicas, trouble, strict=True):
        each.store.before, each.store.after = its.before, its.after
        spoil(each)
    watching = asyncio.ensure_future(history.watcher(replicas[0], stop))
    appending = [
        asyncio.ensure_future(history.appender(replicas[name % 2], name, random.getrandbits(32)))
        for name in range(APPENDERS)
    ]
    async with asyncio.timeout(240):
        for _ in range(4):  # each time all loops die where they are
            async with (
                running(replicas[0], "sequencer", "checkpoints"),
                running(replicas[1], "sequencer", "checkpoints"),
            ):
                await asyncio.wait(appending, timeout=0.15 + random.random() / 4)
        await asyncio.gather(*appending)
        stop.set()
        await watching
        for its in trouble:
            its.on = False
        with acting(TENANT):
            await append(replicas[0], "last", INTEGRATED)
    return history, replicas[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_history_is_one_log(replica: Make, seed: int) -> None:
    history, audit = await made(replica, seed)
    size = await check(audit.store, TENANT, history.acknowledged, history.seen)
    assert size >= len(history.acknowledged) > 100
    assert len(set(history.sequences.values())) == len(history.sequences)


def forks(audit: Replica) -> None:
    """The seeded bug: batches and arrivals are written whoever was there before, as with a lock in place of conditions."""

    def rewritten(writes: Sequence[Write]) -> Sequence[Write]:
        if not any(write.key.collection == BATCHES for write in writes):
            return writes
        return [
            Update(write.key, write.fields)
            if isinstance(write, Update)
            else _put(write)
            if isinstance(write, Create)
            else write
            for write in writes
        ]

    audit.store.rewritten = rewritten


def _put(write: Create) -> Put:
    return Put(write.key, write.fields)


def drops(audit: Replica) -> None:
    """The seeded bug: the last entry of a batch of more than one is forgotten."""

    def rewritten(writes: Sequence[Write]) -> Sequence[Write]:
        return [_shorter(write) if write.key.collection == BATCHES else write for write in writes]

    audit.store.rewritten = rewritten


def _shorter(write: Write) -> Write:
    assert isinstance(write, Create)
    ids, leaves = write.fields["ids"], write.fields["leaves"]
    assert isinstance(ids, list)
    assert isinstance(leaves, bytes)
    return write if len(ids) == 1 else Create(write.key, {**write.fields, "ids": ids[:-1], "leaves": leaves[:-32]})


async def test_a_fork_is_caught(replica: Make) -> None:
    """Each replica goes on from the end that it knows."""
    config = settings(sequence_batch=50)
    one, two = replica(config, by=SystemClock()), replica(config, by=SystemClock())
    history = History()
    for each in (one, two):
        forks(each)
    with acting(TENANT):
        for number in range(4):
            for name, each in (("a", one), ("b", two)):
                results = await append_all(each, f"{name}{number}", level=SEQUENCED)
                history.acknowledged[results[0].appended.entry.entry_id] = ""
    with pytest.raises(Broken):
        await check(one.store, TENANT, history.acknowledged, [])


async def test_a_drop_is_caught(replica: Make) -> None:
    audit = replica(by=SystemClock())
    drops(audit)
    with acting(TENANT):
        results = await append_all(audit, "a", "b", "c", level=SEQUENCED)
    with pytest.raises(Broken):
        await check(audit.store, TENANT, {each.appended.entry.entry_id: "" for each in results}, [])


async def test_a_log_that_was_signed_twice_is_caught(replica: Make) -> None:
    audit = replica(by=SystemClock())
    with acting(TENANT):
        await append(audit, "a", INTEGRATED)
    with pytest.raises(Broken, match="differ"):
        await check(audit.store, TENANT, {}, [(1, bytes(32))])
    with pytest.raises(Broken, match="longer"):
        await check(audit.store, TENANT, {}, [(2, bytes(32))])


async def test_two_sequencers_on_the_same_arrivals(replica: Make) -> None:
    """Held at the moment of their commits: one of them wins, and the other goes on behind it."""
    one, two = replica(by=SystemClock()), replica(by=SystemClock())
    waiting: list[asyncio.Event] = []

    async def together(writes: Sequence[Write]) -> None:
        if len(waiting) < 2 and any(write.key.collection == BATCHES for write in writes):
            waiting.append(asyncio.Event())
            if len(waiting) == 2:
                for each in waiting:
                    each.set()
            async with asyncio.timeout(30):
                await waiting[-1].wait()

    one.store.before = two.store.before = together
    with acting(TENANT):
        first, second = await asyncio.gather(append(one, "a", SEQUENCED), append(two, "b", SEQUENCED))
    assert {first.entry.sequence, second.entry.sequence} == {0, 1}
    assert one.sample("bas_audit_conflicts_total") + two.sample("bas_audit_conflicts_total") >= 1
    assert await check(one.store, TENANT, {first.entry.entry_id: "", second.entry.entry_id: ""}, []) == 2
