"""Two processes at one store in front of one consumer, any of which may fail at any time: what has to hold in the end."""

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from chassis.clock import FakeClock, SystemClock
from chassis.config import Seconds, Store
from chassis.outbox.parked import retry
from chassis.outbox.port import Effect
from chassis.outbox.records import SCHEMA, all_parked, all_pending
from chassis.outbox.relay import Relay
from chassis.store.sqlite import SqliteStore
from tests.support.deliveries import AWAY, POISON, Consumer, Office, effect

_T = TypeVar("_T")
_KEYS = ("devices/a", "devices/b", "users/a")
_BUDGET = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))
_offices = st.integers(0, 1)


class Killed(BaseException):
    """What a process is not there to see."""


class Machine(RuleBasedStateMachine):
    """Nothing that was committed is lost, each has one effect, those of a key in the order of their commits; what is
    refused is parked and holds up nothing."""

    relay: ClassVar[type[Relay]] = Relay

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory(prefix="bas-")
        self.clock = FakeClock()
        self.consumer = Consumer()
        self.committed: list[Effect] = []
        self.retried: set[str] = set()
        path = Path(self._folder.name) / "store.db"
        self.store = self.run(SqliteStore.open(path, SCHEMA, clock=SystemClock(), budget=_BUDGET))
        self._processes = 0
        self.offices = [self._office(), self._office()]

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    def _office(self) -> Office:
        self._processes += 1
        by = f"process {self._processes}"
        return Office(self.store, self.consumer, self.clock, by=by, batch=5, attempts=2, relay=self.relay)

    @rule(office=_offices, key=st.sampled_from(_KEYS), tenant=st.sampled_from("xy"), count=st.integers(1, 7))
    def commit(self, office: int, key: str, tenant: str, count: int) -> None:
        for _ in range(count):
            self._commit(office, key, tenant, b"")

    @rule(office=_offices, key=st.sampled_from(_KEYS), tenant=st.sampled_from("xy"))
    def commit_what_is_refused(self, office: int, key: str, tenant: str) -> None:
        self._commit(office, key, tenant, POISON)

    def _commit(self, office: int, key: str, tenant: str, payload: bytes) -> None:
        # Ids say nothing about the order, but are the same again.
        name = sha256(str(len(self.committed)).encode()).hexdigest()[:8]
        made = effect(name, key, tenant, payload)
        self.run(self.offices[office].commit(made))
        self.committed.append(made)

    @rule(office=_offices)
    def walk(self, office: int) -> None:
        self.run(self.offices[office].relay.walk())

    @rule()
    def walk_at_once(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(office.relay.walk() for office in self.offices))

        self.run(both())

    @rule(office=_offices, delivered=st.booleans())
    def killed(self, office: int, delivered: bool) -> None:  # noqa: FBT001 - drawn
        """Before a delivery, or between delivery and removal; another process takes its place."""

        async def die(effects: Sequence[Effect]) -> None:
            raise Killed

        if delivered:
            self.consumer.after = die
        else:
            self.consumer.before = die
        with suppress(BaseExceptionGroup):
            self.run(self.offices[office].relay.walk())
        self.consumer.before = self.consumer.after = None
        self.offices[office] = self._office()

    @rule(away=st.booleans())
    def consumer_goes_or_comes(self, away: bool) -> None:  # noqa: FBT001 - drawn
        self.consumer.away = AWAY if away else None

    @rule(seconds=st.sampled_from([0.05, 0.5, 3, 20]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @rule()
    def parked_are_retried(self) -> None:
        async def again() -> None:
            names = [each.key.id for each in await self.store.query(all_parked(limit=100))]
            self.retried.update(names)
            await retry(self.store, names)

        self.run(again())

    def teardown(self) -> None:
        try:
            self.run(self._settle())
            self._check()
        finally:
            self.run(self.store.close())
            self._runner.close()
            self._folder.cleanup()

    async def _settle(self) -> None:
        self.consumer.away = None
        # Each refused one holds its key up for as many walks as it may be refused.
        for _ in range(4 + 2 * len(self.committed)):
            await self.clock.advance(20)
            await self.offices[0].relay.walk()
            if not await self.store.count(all_pending()):
                return

    def _check(self) -> None:
        refused = {each.id for each in self.committed if each.payload == POISON}
        for tenant in "xy":
            for key in _KEYS:
                mine = [each.id for each in self.committed if (each.key, each.tenant) == (key, tenant)]
                wanted = [name for name in mine if name not in refused]
                assert self.consumer.ids(key, tenant) == wanted
        assert self.run(self.store.count(all_pending())) == 0
        assert self.run(self.store.count(all_parked())) == len(refused)
