"""Cache invalidations that could not be delivered: recorded together, and delivered when the cache is back.

They are not part of the commit that made them necessary, which has landed when they fail: until then, and after a kill -9
in between, staleness is bounded by the entries' TTL as it would be without them.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from chassis.cache.port import Cache
from chassis.cache.together import together
from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.outbox.effects import derived_id
from chassis.outbox.port import INVALIDATION, Deliver, Effect, Outbox
from chassis.store.port import DocumentStore

TENANT: Final = "$cache"
EVERY: Final = 1.0
"""Seconds between two records of a process: an outage costs a commit a second, however much is changed in it."""
TOGETHER: Final = 1000
"""Names of one record."""
WAITING: Final = 10_000
"""Names that wait to be recorded. What is dropped ends by its TTL."""
MOOT: Final = timedelta(seconds=120)
"""Age at which nothing that a record names can be cached any more: entries live 60 s, and as long again be safe."""

_AT_ONCE: Final = 100


class Invalidations:
    """Of one service: `record` is called with what could not be told, and costs its caller nothing."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._names: dict[str, None] = {}
        self._recording: asyncio.Task[None] | None = None

    def record(self, documents: DocumentStore, names: Sequence[str]) -> None:
        """No I/O: they are committed in a while, many together."""
        for name in names:
            self._names.pop(name, None)
            if len(self._names) >= WAITING:
                self._names.pop(next(iter(self._names)))
            self._names[name] = None
        if self._recording is None or self._recording.done():
            self._recording = asyncio.create_task(self._record(documents), name="outbox-invalidations")

    async def close(self) -> None:
        if self._recording is not None:
            self._recording.cancel()
            await asyncio.wait((self._recording,))

    async def _record(self, documents: DocumentStore) -> None:
        while self._names:
            await self._clock.sleep(EVERY)
            names = list(self._names)[:TOGETHER]
            for name in names:
                del self._names[name]
            at = self._clock.now().isoformat()
            payload = json.dumps({"at": at, "names": names}).encode()
            effect = Effect(derived_id(INVALIDATION, at, *names), INVALIDATION, TENANT, "cache", payload)
            writes = self._outbox.records([effect])
            if not writes:
                self._names.clear()
                return
            try:
                await documents.commit(writes)
            except ApiError:
                continue  # the store is away, too: the entries end by their TTL
            self._outbox.wake()


def deliver_invalidations(cache: Cache, clock: Clock) -> Deliver:
    """Removes what records name, unless it is too old to be there. To remove more than is out of date costs a miss."""

    async def deliver(effects: Sequence[Effect]) -> Sequence[BaseException | None]:
        for effect in effects:
            told = json.loads(effect.payload)
            if clock.now() - datetime.fromisoformat(told["at"]) >= MOOT:
                continue
            for first in range(0, len(told["names"]), _AT_ONCE):
                await together([cache.delete(name) for name in told["names"][first : first + _AT_ONCE]])
        return [None] * len(effects)

    return deliver
