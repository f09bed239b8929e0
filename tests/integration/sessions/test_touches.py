"""Writing that a session is used: once a step, beside the calls, and never in their way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from chassis import context
from chassis.clock import FakeClock, SystemClock
from chassis.context import Call
from chassis.store.port import StoreUnavailable, Write
from tests.integration.sessions.calls import authenticate, create, get, is_live
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
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


async def test_many_uses_at_once_are_one_write(sessions: Sessions, store: WatchedStore, clock: FakeClock) -> None:
    made = await create(sessions)
    await authenticate(sessions, made.token)
    await clock.advance(61)
    commits, reads = store.commits, store.reads
    await asyncio.gather(*(authenticate(sessions, made.token) for _ in range(50)))
    await sessions.touched()
    assert (store.commits - commits, store.reads - reads) == (1, 1)
    seen = await get(sessions, made.session.session_id)
    assert seen.last_seen_time.ToDatetime(UTC) == clock.now()
    assert seen.update_time == made.session.update_time
    assert (seen.expire_time.ToDatetime(UTC) - clock.now()).total_seconds() == 1860


async def test_replicas_that_write_at_once_write_once(
    sessions: Sessions, store: WatchedStore, valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, valkey.url, clock) as other:
        made = await create(sessions)
        for each in (sessions, other):
            await authenticate(each, made.token)
        await clock.advance(61)
        commits = store.commits
        for _ in range(5):
            await asyncio.gather(*(authenticate(each, made.token) for each in (sessions, other)))
            await sessions.touched()
            await other.touched()
        assert store.commits - commits == 1


async def test_no_call_waits_for_it_and_no_calls_deadline_ends_it(
    sessions: Sessions, store: WatchedStore, clock: FakeClock
) -> None:
    made = await create(sessions)
    await authenticate(sessions, made.token)
    await clock.advance(61)
    late = asyncio.Event()

    async def wait(_: Sequence[Write]) -> None:
        store.before = None
        await late.wait()

    store.before = wait
    commits = store.commits
    brief = context.enter(Call("test", "r1", SystemClock().monotonic() + 2))
    try:
        assert await is_live(sessions, made.token)
        assert store.commits == commits
        await asyncio.sleep(2.1)
    finally:
        context.leave(brief)
    late.set()
    await sessions.touched()
    assert store.commits == commits + 1


async def test_a_store_that_is_away_keeps_nobody_out(sessions: Sessions, store: WatchedStore, clock: FakeClock) -> None:
    made = await create(sessions)
    await authenticate(sessions, made.token)
    await clock.advance(61)

    async def fail(_: Sequence[Write]) -> None:
        raise StoreUnavailable

    store.before = fail
    for _ in range(3):
        assert await is_live(sessions, made.token)
        await sessions.touched()
    assert sessions.sample("bas_sessions_touches_total", outcome="failed") == 3
    store.before = None
    assert await is_live(sessions, made.token)
    await sessions.touched()
    assert sessions.sample("bas_sessions_touches_total", outcome="written") == 1


async def test_what_is_being_written_ends_with_the_service(
    store: WatchedStore, valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, valkey.url, clock) as sessions:
        with acting("acme"):
            made = await create(sessions)
            await authenticate(sessions, made.token)
            await clock.advance(61)

            async def hang(_: Sequence[Write]) -> None:
                await asyncio.Event().wait()

            store.before = hang
            await authenticate(sessions, made.token)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("touch")]
