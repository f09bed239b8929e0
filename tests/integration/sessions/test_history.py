"""A recorded history under faults keeps the promises; the same check catches a naive cache and a fence that is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.cache.client import CacheClient
from chassis.cache.lease import Lives
from chassis.cache.port import CacheUnavailable, Load
from chassis.cache.strict import Fence, StrictReadThrough
from chassis.clock import SystemClock
from chassis.telemetry.metrics import Metrics
from tests.integration.sessions.chaos import Faults, Run, SlowStore
from tests.integration.sessions.conftest import Sessions, WatchedStore, replica
from tests.integration.sessions.history import History, Refresh, Revoke, Use
from tests.integration.sessions.passage import Passage, passage
from tests.support.naive_cache import NaiveReadThrough
from tests.support.valkey import Valkey

SECONDS = 3.0


@asynccontextmanager
async def pair(store: WatchedStore, server: Valkey) -> AsyncIterator[tuple[Passage, list[Sessions]]]:
    """Two replicas; the way of the second to the cache can be cut."""
    slow = SlowStore(store)
    async with (
        passage(server.folder, server.url) as way,
        replica(slow, server.url, SystemClock(), op_timeout=0.1) as one,
        replica(slow, way.url, SystemClock(), op_timeout=0.1) as two,
    ):
        tellers = [asyncio.create_task(_run(each)) for each in (one, two)]
        try:
            yield way, [one, two]
        finally:
            for teller in tellers:
                teller.cancel()
            await asyncio.gather(*tellers, return_exceptions=True)


async def _run(sessions: Sessions) -> None:
    await sessions.module.background[1].run()


async def test_the_promises_hold_under_faults(store: WatchedStore, own_valkey: Valkey) -> None:
    async with pair(store, own_valkey) as (way, replicas):
        faults = Faults(own_valkey, way)

        def enough(history: History) -> bool:
            return (
                faults.count >= 5
                and history.operations > 1000
                and _acknowledged(history) > 5
                and sum(bool(refresh.successor) for refresh in history.refreshes) > 5
                and sum(use.live for use in history.uses) > 100
                and all(each.hits > 100 for each in replicas)
            )

        history = await Run(replicas, SECONDS, enough=enough).run(faults)
        assert history.violations() == []
        assert enough(history)


def _acknowledged(history: History) -> int:
    return sum(revoke.acknowledged is not None for revoke in history.revokes)


class Naive:
    """get, load, set; delete on write."""

    def __init__(self, cache: CacheClient) -> None:
        self._naive = NaiveReadThrough(cache, "sess")

    async def get(self, key: str, load: Load) -> bytes | None:
        return await self._naive.get(key, load)

    async def fence(self, *keys: str, hold: float) -> Fence:
        return Fence(keys, "", b"")

    async def lift(self, fence: Fence) -> bool:
        return await self._naive.invalidate(*fence.keys)

    async def forget(self, *keys: str) -> None:
        if not await self._naive.invalidate(*keys):
            raise CacheUnavailable

    async def close(self) -> None:
        pass


class DropsTooEarly(StrictReadThrough):
    """A seeded bug: what is cached is dropped before the commit only, and nothing keeps readers from filling again."""

    async def fence(self, *keys: str, hold: float) -> Fence:
        await self.forget(*keys)
        return Fence(keys, "", b"")

    async def lift(self, fence: Fence) -> bool:
        return True


async def test_sessions_that_are_revoked_while_they_are_first_read(store: WatchedStore, own_valkey: Valkey) -> None:
    """The same load that catches the caches below."""
    async with pair(store, own_valkey) as (_, replicas):
        run = Run(replicas, 1.0, owners=8, lives_for=2, enough=lambda history: _acknowledged(history) > 20)
        history = await run.run()
        assert history.violations() == []
        assert _acknowledged(history) > 20


def _naive(sessions: Sessions) -> object:
    return Naive(sessions.cache)


def _drops_too_early(sessions: Sessions) -> object:
    cache = sessions.cache
    return DropsTooEarly(cache, lambda: cache.epoch, "sess", Lives(60, 3, 5, 0.1), Metrics())


@pytest.mark.parametrize("broken", [_naive, _drops_too_early])
async def test_the_check_catches_a_cache_that_is_not_strict(
    store: WatchedStore, own_valkey: Valkey, broken: object
) -> None:
    assert callable(broken)
    async with pair(store, own_valkey) as (_, replicas):
        for each in replicas:
            each.api._store._cached = broken(each)
        for _ in range(30):
            history = await Run(replicas, 1.0, owners=8, lives_for=2).run()
            if any(line.startswith("stale") for line in history.violations()):
                return
    raise AssertionError("the check caught nothing")


def test_the_check_knows_each_violation() -> None:
    def told(**what: list[object]) -> list[str]:
        return [line.partition(":")[0] for line in History(**what).violations()]  # type: ignore[arg-type]  # each its own

    revoked = Revoke("s", 5, 8)
    assert told(uses=[Use("s", "t", 7, 9, live=True)], revokes=[revoked]) == []
    assert told(uses=[Use("s", "t", 9, 10, live=True)], revokes=[revoked]) == ["stale"]
    assert told(refreshes=[Refresh("s", "t", 9, 10, "u")], revokes=[revoked]) == ["stale"]
    assert told(uses=[Use("s", "t", 9, 10, live=True)], revokes=[Revoke("s", 5, None)]) == []
    assert told(uses=[Use("s", "t", 1, 6, live=False)], revokes=[revoked]) == []
    assert told(uses=[Use("s", "t", 1, 4, live=False)], revokes=[revoked]) == ["lost"]
    assert told(refreshes=[Refresh("s", "t", 1, 4, "")], revokes=[revoked]) == ["lost"]
    assert told(refreshes=[Refresh("s", "t", 1, 4, None)], revokes=[revoked]) == []
    assert told(refreshes=[Refresh("s", "t", 1, 2, "u"), Refresh("s", "t", 3, 4, "v")]) == ["fork"]
    assert told(refreshes=[Refresh("s", "t", 1, 2, "u"), Refresh("s", "t", 3, 4, "u")]) == []
