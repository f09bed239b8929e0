"""The cache's promises over interleavings: every cache operation, load and commit is split into its request, its effect
and its reply, and Hypothesis chooses who moves next. The real read-through code of two replicas runs on a cache in
memory; the naive read-through, under the same machine, is caught."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from random import Random
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from chassis.cache import lease
from chassis.cache.lease import Lives
from chassis.cache.port import Arg, Cache, Load, Loaded, Reply, Script
from chassis.cache.readthrough import GroupReadThrough, LeaseReadThrough
from chassis.clock import FakeClock
from chassis.telemetry.metrics import Metrics
from tests.support.history import History, Read, Write
from tests.support.memory_cache import MemoryCache
from tests.support.naive_cache import NaiveReadThrough

T = TypeVar("T")
KEY = "acme/d1"
LIVES = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)
# A load that began before the commit may fill for as long as its lease; then the entry lives its longest TTL.
LONGEST_STALE = LIVES.lease_ttl + LIVES.ttl * (1 + LIVES.jitter)


class Subject(Protocol):
    async def get(self, key: str, load: Load) -> bytes | None: ...
    async def invalidate(self, key: str) -> bool: ...
    async def close(self) -> None: ...


class _Group:
    """The group cache's one member as a Subject."""

    def __init__(self, cache: Cache, random: Random) -> None:
        self._group = GroupReadThrough(cache, "dev", LIVES, Metrics(), random)

    async def get(self, key: str, load: Load) -> bytes | None:
        return await self._group.get(key, "first page", load)

    async def invalidate(self, key: str) -> bool:
        return await self._group.invalidate(key)

    async def close(self) -> None:
        await self._group.close()


_actor: ContextVar[int] = ContextVar("actor")


class _Gates:
    """Where everything waits until the machine lets it on; each gate belongs to the read or write that led to it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def __call__(self) -> None:
        gate = (_actor.get(), asyncio.get_running_loop().create_future())
        self.waiting.append(gate)
        try:
            await gate[1]
        finally:
            if gate in self.waiting:
                self.waiting.remove(gate)

    def actors(self) -> list[int]:
        return sorted({actor for actor, _ in self.waiting})

    def open(self, actor: int) -> bool:
        """Let `actor` on by one gate; False when it waits at none."""
        for gate in self.waiting:
            if gate[0] == actor:
                self.waiting.remove(gate)
                gate[1].set_result(None)
                return True
        return False


class _SteppedCache(MemoryCache):
    def __init__(self, clock: FakeClock, gates: _Gates) -> None:
        super().__init__(clock)
        self._gates = gates

    async def _do(self, effect: Callable[[], T]) -> T:
        await self._gates()
        try:
            return await super()._do(effect)
        finally:
            await self._gates()


class Interleavings(RuleBasedStateMachine):
    steps_back_after_eviction = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.gates = _Gates()
        self.cache = _SteppedCache(self.clock, self.gates)
        self.replicas = [self.subject(self.cache, Random(seed)) for seed in range(2)]
        self.ticks = itertools.count()
        self.actors = itertools.count()
        self.history = History()
        self.version = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.unheard: list[tuple[float, Write]] = []
        self.monotonic = True
        self.failures: list[BaseException] = []

    def subject(self, cache: Cache, random: Random) -> Subject:
        return LeaseReadThrough(cache, "dev", LIVES, Metrics(), random)

    @precondition(lambda self: len(self.tasks) < 6)
    @rule(replica=st.integers(0, 1))
    def read(self, replica: int) -> None:
        self._begin(self._read(self.replicas[replica]))

    @precondition(lambda self: len(self.tasks) < 6)
    @rule(replica=st.integers(0, 1))
    def write(self, replica: int) -> None:
        self._begin(self._write(self.replicas[replica]))

    @precondition(lambda self: self.gates.waiting)
    @rule(choice=st.integers(0, 11), steps=st.integers(1, 7))
    def step(self, choice: int, steps: int) -> None:
        actors = self.gates.actors()
        self._move(actors[choice % len(actors)], steps)

    @precondition(lambda self: self.gates.waiting)
    @rule(choice=st.integers(0, 11))
    def finish(self, choice: int) -> None:
        self.step(choice, 100)

    @rule(
        what=st.sampled_from(
            ["cancel", "lose values", "lose tokens", "go away", "return", "wait", "wait long", "restart"]
        )
    )
    def disturb(self, what: str) -> None:
        match what:
            case "cancel":
                reads = [task for task in self.tasks if task.get_name() == "read"]
                if reads:
                    reads[0].cancel()
                    self._settle()
            case "lose values" | "lose tokens":
                for key in self.cache.held():
                    if key.endswith(":g") == (what == "lose tokens"):
                        self.cache.evict(key)
                if what == "lose values" and self.steps_back_after_eviction:
                    self.monotonic = False
            case "go away":
                self.cache.away = True
                self.monotonic = False
            case "restart":
                # Empty, under a new run id; or with the data of before, which then has the old run's names.
                self.cache.restart(f"run-{next(self.ticks)}")
                self.monotonic = False
            case "return":
                self.cache.away = False
            case _:
                self._wait(10.0 if what == "wait" else 80.0)

    def _wait(self, seconds: float) -> None:
        self.loop.run_until_complete(self.clock.advance(seconds))
        for due, write in self.unheard:
            if due < self.clock.monotonic() and write.acknowledged is None:
                write.acknowledged = float(next(self.ticks))

    def _move(self, actor: int, steps: int) -> None:
        for _ in range(steps):
            if not self.gates.open(actor):
                break
            self._settle()

    def teardown(self) -> None:
        try:
            self.drain_all()
            assert self.failures == []
            assert self.history.violations(monotonic=self.monotonic) == []
        finally:
            self.loop.run_until_complete(self._end())
            self.loop.close()

    async def _end(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in self.replicas:
            await replica.close()

    def drain_all(self) -> None:
        while self.gates.waiting:
            self._move(self.gates.waiting[0][0], 1)

    async def _read(self, replica: Subject) -> None:
        began = float(next(self.ticks))
        data = await replica.get(KEY, self._load)
        assert data is not None
        self.history.reads.append(Read(began, float(next(self.ticks)), int(data)))

    async def _load(self) -> Loaded:
        await self.gates()
        version = str(self.version)
        await self.gates()
        return Loaded(version.encode(), version)

    async def _write(self, replica: Subject) -> None:
        await self.gates()
        self.version += 1
        write = Write(self.version, float(next(self.ticks)))
        self.history.writes.append(write)
        committed = self.clock.monotonic()
        await self.gates()
        if await replica.invalidate(KEY):
            write.acknowledged = float(next(self.ticks))
        else:
            self.unheard.append((committed + LONGEST_STALE, write))

    def _begin(self, work: Any) -> None:
        name = "read" if work.__name__ == "_read" else "write"
        scope = copy_context()
        scope.run(_actor.set, next(self.actors))
        task = self.loop.create_task(work, name=name, context=scope)
        self.tasks.append(task)
        task.add_done_callback(self._ended)
        self._settle()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.remove(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.failures.append(problem)

    def _settle(self) -> None:
        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())


class GroupInterleavings(Interleavings):
    steps_back_after_eviction = True

    def subject(self, cache: Cache, random: Random) -> Subject:
        return _Group(cache, random)


class NaiveInterleavings(Interleavings):
    def subject(self, cache: Cache, random: Random) -> Subject:
        return NaiveReadThrough(cache, "dev")


class _FillsWithoutLooking(_SteppedCache):
    """A seeded bug: the fill does not compare the token."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        if script is not lease.FILL:
            return await super().run(script, keys, args)
        await self.set(keys[0], args[1] if isinstance(args[1], bytes) else b"", ttl=60.0)
        return 1


class SeededInterleavings(Interleavings):
    def __init__(self) -> None:
        super().__init__()
        self.cache = _FillsWithoutLooking(self.clock, self.gates)
        self.replicas = [self.subject(self.cache, Random(seed)) for seed in range(2)]


_SEARCH = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Interleavings, GroupInterleavings])
def test_no_interleaving_breaks_a_promise(machine: type[Interleavings]) -> None:
    run_state_machine_as_test(machine, settings=_SEARCH)


@pytest.mark.parametrize("machine", [NaiveInterleavings, SeededInterleavings])
def test_the_check_catches(machine: type[Interleavings]) -> None:
    with pytest.raises(AssertionError, match=r"stale|backwards"):
        run_state_machine_as_test(machine, settings=settings(_SEARCH, phases=[Phase.generate], max_examples=2000))
