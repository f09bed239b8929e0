"""Two replicas of each service over one store and one cache: one whose calls are cut, and one that looks what is left."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.cache.client import open_cache
from chassis.cache.port import Cache
from chassis.clock import SystemClock
from chassis.config import Config, Seconds, Sessions
from chassis.module import Parts
from chassis.store.port import DocumentStore
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.devices import module as devices
from services.sessions import module as sessions
from services.users import module as users
from tests.faults.cache import FaultyCache
from tests.faults.fate import Chances, Fate
from tests.integration.cancellation.stepping import Knife, SteppedCache, SteppedRevoker, SteppedStore
from tests.support import patience
from tests.support.eventually import eventually
from tests.support.outbox import RecordingOutbox
from tests.support.valkey import Valkey

CONFIG = Config(sessions=Sessions(revoked_kept=Seconds(0)))


@dataclass(frozen=True, slots=True)
class Replica:
    """`api` is the servicer; `.api.<RPC>` is what the test calls, as with the services' own fixtures."""

    api: Any


@dataclass(frozen=True, slots=True)
class Rig:
    """`cut` is called under the knife, `other` is not; `bare` has no cache, and shows what is stored."""

    knife: Knife
    cut: Any
    other: Any
    bare: Any
    store: DocumentStore
    outbox: RecordingOutbox
    revoker: SteppedRevoker
    resting: frozenset[str]
    """Tasks that there are while nothing is asked, by name."""

    async def settled(self) -> None:
        """Once all that a call left behind has come to its end."""

        def only_resting() -> bool:
            return not self.left()

        await eventually(only_resting, f"the end of {self.left()}")

    def left(self) -> list[str]:
        here = asyncio.current_task()
        names = [task.get_name() for task in asyncio.all_tasks() if task is not here]
        return [name for name in names if name not in self.resting]


@asynccontextmanager
async def rig(service: str, folder: Path, server: Valkey) -> AsyncIterator[Rig]:
    knife, outbox = Knife(), RecordingOutbox()
    revoker = SteppedRevoker(knife)
    spec = {"devices": devices.SPEC, "sessions": sessions.SPEC, "users": users.SPEC}[service]
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(folder / "s.db", spec.schema, clock=SystemClock(), budget=patience.STORE)
        stack.push_async_callback(store.close)
        made = []
        for kind in ("cut", "other", "bare"):
            cut = kind == "cut"
            cache: Cache = open_cache(patience.cache_at(server.url), Metrics(), clock=SystemClock())
            stack.push_async_callback(cache.close)
            await cache.get("x")
            if kind == "bare":
                cache = FaultyCache(cache, Fate(0, Chances(error=1.0)))
            parts = Parts(
                SystemClock(),
                SteppedStore(store, knife) if cut else store,
                SteppedCache(cache, knife) if cut else cache,
                Metrics(),
                os.urandom,
                lambda purpose: hashlib.sha256(purpose.encode()).digest(),
                outbox=outbox,
            )
            module = spec.build(CONFIG, parts, **({"sessions": revoker} if service == "users" else {}))
            if module.close is not None:
                stack.push_async_callback(module.close)
            made.append(Replica(module.servicer))
        here = asyncio.current_task()
        resting = frozenset(task.get_name() for task in asyncio.all_tasks() if task is not here)
        yield Rig(knife, made[0], made[1], made[2], store, outbox, revoker, resting)
