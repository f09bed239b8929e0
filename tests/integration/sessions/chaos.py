"""Many callers of two replicas over one store and one real Valkey, which suffers; what they saw is the history."""

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from chassis.errors import ApiError, Code
from chassis.store.port import Committed, Document, Key, Query, Write
from tests.integration.sessions.calls import authenticate, create, get, refresh, revoke
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting
from tests.integration.sessions.history import History, Refresh, Revoke, Use
from tests.integration.sessions.passage import Passage
from tests.support.valkey import Valkey

READERS = 6
"""A replica."""


class SlowStore(WatchedStore):
    """Reads that take their time after the engine has answered, and commits before it is asked, now and then: what
    races need to happen often."""

    random = Random(7)

    async def get(self, key: Key) -> Document | None:
        found = await super().get(key)
        await self._dawdle()
        return found

    async def commit(self, writes: Sequence[Write]) -> Committed:
        await self._dawdle()
        committed = await super().commit(writes)
        await self._dawdle()
        return committed

    async def query(self, query: Query) -> list[Document]:
        return await super().query(query)

    async def _dawdle(self) -> None:
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.uniform(0, 0.003))


@dataclass(slots=True)
class Known:
    """A session as its owner knows it: all its tokens, the newest last."""

    session_id: str
    tokens: list[str]


@dataclass
class Run:
    """`replicas` are asked by turns. Ends after `operations`, or after `seconds`, whichever is first; but not before
    there is `enough`, which a busy machine may need `longest` seconds for. `lives_for`: turns of its owner until a
    session is revoked, about; with few of them, it is revoked while it is first read."""

    replicas: Sequence[Sessions]
    seconds: float
    operations: int = 1 << 60
    owners: int = 4
    lives_for: int = 40
    enough: Callable[[History], bool] = lambda _: True
    longest: float = 60.0
    history: History = field(default_factory=History)
    random: Random = field(default_factory=lambda: Random(1))

    def __post_init__(self) -> None:
        self._ticks = itertools.count(1)
        self._known: dict[int, Known] = {}
        self._recent: list[Known] = []
        self._begun = 0.0
        self._complete = False

    async def run(self, *faults: Callable[["Run"], Awaitable[None]]) -> History:
        self._begun = asyncio.get_running_loop().time()
        workers = [self._reader(replica) for replica in self.replicas for _ in range(READERS)]
        workers += [self._owner(number) for number in range(self.owners)]
        await asyncio.gather(*workers, *(fault(self) for fault in faults))
        return self.history

    def going(self) -> bool:
        passed = asyncio.get_running_loop().time() - self._begun
        if not self._complete and passed >= self.seconds:
            self._complete = passed >= self.longest or self.enough(self.history)
        return not self._complete and self.history.operations < self.operations

    async def _reader(self, replica: Sessions) -> None:
        with acting("acme"):
            while self.going():
                await asyncio.sleep(0)
                known = self._recent + list(self._known.values())
                if known:
                    await self._use(replica, self.random.choice(known))

    async def _owner(self, number: int) -> None:
        """Makes a session, refreshes it from time to time, perhaps twice at once, and revokes it in the end."""
        with acting("acme"):
            while self.going():
                try:
                    made = await create(self.random.choice(self.replicas), f"u{number}")
                except ApiError:
                    await asyncio.sleep(0.005)
                    continue
                known = self._known[number] = Known(made.session.session_id, [made.token])
                while self.going() and self.random.random() > 1 / self.lives_for:
                    await asyncio.sleep(self.random.uniform(0, 0.004))
                    if self.random.random() < 0.1 and len(known.tokens) < 6:
                        token = known.tokens[-1]
                        await asyncio.gather(
                            *(self._refresh(self.random.choice(self.replicas), known, token) for _ in range(2))
                        )
                await self._revoke(known)
                del self._known[number]
                self._recent = [*self._recent[-3:], known]

    async def _use(self, replica: Sessions, known: Known) -> None:
        token, began = self.random.choice(known.tokens), next(self._ticks)
        try:
            if self.random.random() < 0.2:
                live = (await get(replica, known.session_id)).status == 1
            else:
                await authenticate(replica, token)
                live = True
        except ApiError as refusal:
            if refusal.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                return  # the store of a busy machine; nothing was said about the session
            if refusal.code is not Code.UNAUTHENTICATED:
                raise
            live = False
        self.history.uses.append(Use(known.session_id, token, began, next(self._ticks), live))

    async def _refresh(self, replica: Sessions, known: Known, token: str) -> None:
        began = next(self._ticks)
        try:
            successor: str | None = (await refresh(replica, token)).token
        except ApiError as refusal:
            successor = "" if refusal.code is Code.UNAUTHENTICATED else None
        self.history.refreshes.append(Refresh(known.session_id, token, began, next(self._ticks), successor))
        if successor and successor not in known.tokens:
            known.tokens.append(successor)

    async def _revoke(self, known: Known) -> None:
        """Until it is answered OK, as a careful caller does."""
        while True:
            record = Revoke(known.session_id, next(self._ticks), None)
            self.history.revokes.append(record)
            try:
                await revoke(self.random.choice(self.replicas), known.session_id)
            except ApiError as failure:
                if failure.code not in (Code.UNAVAILABLE, Code.ABORTED):
                    raise
                if not self.going():
                    return
                await asyncio.sleep(self.random.uniform(0, 0.02))
            else:
                record.acknowledged = next(self._ticks)
                return


class Faults:
    """What happens to the server, one thing after the other."""

    def __init__(self, server: Valkey, way: Passage) -> None:
        self._server = server
        self._way = way
        self.count = 0

    async def __call__(self, run: Run) -> None:
        kinds = itertools.cycle((self.stall, self.cut, self.empty, self.short_stall, self.restore))
        while run.going():
            await asyncio.sleep(run.random.uniform(0.1, 0.3))
            await next(kinds)(run)
            self.count += 1

    async def stall(self, run: Run) -> None:
        self._server.pause()
        await asyncio.sleep(run.random.uniform(0.05, 0.3))
        self._server.resume()

    async def short_stall(self, run: Run) -> None:
        for _ in range(5):
            self._server.pause()
            await asyncio.sleep(run.random.uniform(0.01, 0.06))
            self._server.resume()
            await asyncio.sleep(run.random.uniform(0.01, 0.06))

    async def cut(self, run: Run) -> None:
        self._way.cut()
        await asyncio.sleep(run.random.uniform(0.05, 0.4))
        self._way.mend()

    async def empty(self, _: Run) -> None:
        await self._server.kill()
        await self._server.restart()

    async def restore(self, run: Run) -> None:
        """It comes back with what it held a while ago."""
        await asyncio.to_thread(self._server.command, "SAVE")
        dump = self._server.folder / "dump.rdb"
        kept = self._server.folder / "kept.rdb"
        shutil.copy(dump, kept)
        await asyncio.sleep(run.random.uniform(0.1, 0.2))
        await self._server.kill()
        shutil.copy(kept, dump)
        await self._server.restart()
        dump.unlink(missing_ok=True)
