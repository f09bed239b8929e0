"""Time-outs over the service: idle, absolute, used without writes, and clocks that jump."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_ACTIVE, SESSION_STATUS_EXPIRED, SESSION_STATUS_REVOKED
from chassis.clock import FakeClock
from chassis.config import Config
from chassis.config import Sessions as Settings
from tests.integration.sessions.calls import (
    authenticate,
    clean_up,
    create,
    get,
    is_live,
    listed,
    refresh,
    refused,
    revoke,
    revoke_all,
)
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


@pytest.fixture
async def sessions(store: WatchedStore, valkey: Valkey, clock: FakeClock) -> AsyncIterator[Sessions]:
    async with replica(store, valkey.url, clock) as made:
        await made.connected()
        with acting("acme"):
            yield made


async def test_use_keeps_a_session_alive_until_its_absolute_end(
    sessions: Sessions, store: WatchedStore, clock: FakeClock
) -> None:
    made = await create(sessions, idle=1800, absolute=7200)
    commits = store.commits
    for _ in range(7200 // 50 - 1):
        await clock.advance(50)
        await authenticate(sessions, made.token)
        await sessions.touched()
    # Used every 50 s: written in steps of at least 60 s.
    assert store.commits - commits == (7200 // 50 - 1) // 2
    seen = (await authenticate(sessions, made.token)).session.last_seen_time.ToDatetime(UTC)
    assert (clock.now() - seen).total_seconds() <= 50
    await clock.advance(51)
    assert not await is_live(sessions, made.token)
    with refused("SESSION_INVALID"):
        await refresh(sessions, made.token)
    assert (await get(sessions, made.session.session_id)).status == SESSION_STATUS_EXPIRED


async def test_a_session_left_alone_ends_though_it_is_cached(sessions: Sessions, clock: FakeClock) -> None:
    made = await create(sessions, idle=10)
    await authenticate(sessions, made.token)
    hits = sessions.hits
    await clock.advance(10.9)
    assert (await get(sessions, made.session.session_id)).status == SESSION_STATUS_ACTIVE
    await clock.advance(0.2)
    assert (await get(sessions, made.session.session_id)).status == SESSION_STATUS_EXPIRED
    assert not await is_live(sessions, made.token)
    assert sessions.hits - hits >= 2
    await revoke(sessions, made.session.session_id)
    assert (await get(sessions, made.session.session_id)).status == SESSION_STATUS_EXPIRED


async def test_no_entry_outlives_its_session(sessions: Sessions) -> None:
    for idle in (5, 100, 10_000):
        made = await create(sessions, idle=idle)
        await authenticate(sessions, made.token)
        (key,) = await sessions.cache.command("KEYS", f"sess:{{{made.session.session_id}}}*")
        left = await sessions.cache.command("PTTL", key)
        assert left <= min(idle * 1.1, 1800 * 1.1) * 1000
        if idle < 1800:
            assert left >= idle * 0.9 * 1000


async def test_revoked_on_a_clock_that_was_ahead_is_revoked_for_good(sessions: Sessions, clock: FakeClock) -> None:
    """On that clock the session was over already; the promise holds when the clock is set right, too."""
    one, other = await create(sessions), await create(sessions)
    clock.step_wall(40 * 86400)
    assert not await is_live(sessions, one.token)
    await revoke(sessions, one.session.session_id)
    clock.step_wall(-40 * 86400)
    assert not await is_live(sessions, one.token)
    assert await is_live(sessions, other.token)
    clock.step_wall(40 * 86400)
    assert await revoke_all(sessions) == 0
    clock.step_wall(-40 * 86400)
    assert not await is_live(sessions, other.token)


async def test_a_clock_that_steps_back_ends_nothing_and_writes_nothing(
    sessions: Sessions, store: WatchedStore, clock: FakeClock
) -> None:
    made = await create(sessions)
    refreshed = await refresh(sessions, made.token)
    commits = store.commits
    clock.step_wall(-86400)
    assert await is_live(sessions, refreshed.token)
    assert (await refresh(sessions, made.token)).token == refreshed.token
    await sessions.touched()
    assert store.commits == commits
    clock.step_wall(86400 + 100)
    shown = (await authenticate(sessions, refreshed.token)).session
    assert shown.last_seen_time.ToDatetime(UTC) <= clock.now()


async def test_cleanup_removes_what_is_over_in_batches(
    sessions: Sessions, store: WatchedStore, valkey: Valkey, clock: FakeClock
) -> None:
    over = [await create(sessions, f"u{number % 3}", idle=10) for number in range(120)]
    kept, revoked = await create(sessions), await create(sessions)
    await revoke(sessions, revoked.session.session_id)
    with acting("other"):
        theirs = await create(sessions, idle=10)
    assert (await clean_up(sessions)).removed_count == 0
    await clock.advance(12)
    first = await clean_up(sessions, limit=70)
    assert (first.removed_count, first.more) == (70, True)
    async with replica(store, valkey.url, clock) as other:
        both = await asyncio.gather(clean_up(sessions), clean_up(other))
    assert sum(each.removed_count for each in both) == 50
    for each in (over[0], over[-1]):
        with refused("SESSION_NOT_FOUND"):
            await get(sessions, each.session.session_id)
        assert not await is_live(sessions, each.token)
    assert await is_live(sessions, kept.token)
    assert (await get(sessions, revoked.session.session_id)).status == SESSION_STATUS_REVOKED
    with acting("other"):
        assert (await get(sessions, theirs.session.session_id)).status == SESSION_STATUS_EXPIRED
    assert (await sessions.cleanup.some(0)).count == 1
    await clock.advance(86400)
    assert (await clean_up(sessions)).removed_count == 2
    assert not (await listed(sessions)).sessions


async def test_cleanup_leaves_a_session_that_is_still_used(
    sessions: Sessions, store: WatchedStore, clock: FakeClock
) -> None:
    made = await create(sessions, idle=100)
    for _ in range(5):
        await clock.advance(60)
        await authenticate(sessions, made.token)
        await sessions.touched()
        assert await sessions.cleanup.some(0) == (await sessions.cleanup.some(0))
    assert await is_live(sessions, made.token)
    await clock.advance(111)
    assert (await sessions.cleanup.some(0)).count == 1


async def test_the_schedule_cleans_up_but_not_after_a_jump(
    store: WatchedStore, valkey: Valkey, clock: FakeClock
) -> None:
    config = Config(sessions=Settings(cleanup_batch=10))
    async with replica(store, valkey.url, clock, config) as sessions:
        await sessions.connected()
        with acting("acme"):
            made = [await create(sessions, idle=30) for _ in range(25)]
        loop = asyncio.create_task(sessions.cleanup.run())
        try:
            await clock.advance(1)
            clock.step_wall(86400)
            await clock.advance(60)
            assert sessions.sample("bas_sessions_cleanup_failures_total", reason="CLOCK_JUMPED") == 1
            clock.step_wall(-86400)

            async def removed() -> bool:
                if clock.sleepers:  # a store or cache that is slow costs a round
                    await clock.advance(60)
                return sessions.sample("bas_sessions_removed_total") == len(made)

            await eventually(removed, "all are removed")
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
