"""The promise of docs/cache.md, one fault at a time: once RevokeSession has answered OK, no replica shows it live."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence

import pytest

from bas.sessions.v2.sessions_pb2 import Session
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.port import StoreTimeout, Update, Write
from tests.integration.sessions.calls import create, get, is_live, refused, revoke, revoke_all, update
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
from tests.integration.sessions.passage import Passage, passage
from tests.support.eventually import eventually
from tests.support.valkey import Valkey

STALL = 1.5
"""Seconds that a call waits for a stalled cache: what a busy one takes without stalling is far less."""
DEAD = "unix:///nonexistent/bas.sock"


@pytest.fixture
async def pair(store: WatchedStore, own_valkey: Valkey) -> AsyncIterator[tuple[Sessions, Sessions]]:
    clock = SystemClock()
    async with (
        replica(store, own_valkey.url, clock, op_timeout=STALL) as one,
        replica(store, own_valkey.url, clock, op_timeout=STALL) as two,
    ):
        await one.connected()
        await two.connected()
        with acting("acme"):
            yield one, two


async def cached(sessions: Sessions, token: str) -> bool:
    """Whether the session is live, and served from the cache."""
    hits = sessions.hits
    return await is_live(sessions, token) and sessions.hits > hits


async def connected(*replicas: Sessions) -> None:
    for each in replicas:
        await eventually(lambda each=each: each.cache.epoch is not None, "the cache is reached again")  # type: ignore[misc]  # a default binds


async def test_without_the_cache_nothing_is_revoked_and_nothing_claimed(
    pair: tuple[Sessions, Sessions], own_valkey: Valkey, store: WatchedStore
) -> None:
    one, two = pair
    made = await create(one)
    assert await is_live(two, made.token)
    await own_valkey.stop()
    commits = store.commits
    for _ in range(2):
        with refused("CACHE_UNAVAILABLE"):
            await revoke(one, made.session.session_id)
    with refused("CACHE_UNAVAILABLE"):
        await revoke_all(one)
    assert store.commits == commits
    assert await is_live(one, made.token)
    assert await is_live(two, made.token)
    assert (await create(one)).token
    await own_valkey.start()
    await connected(one, two)
    await revoke(one, made.session.session_id)
    assert not await is_live(one, made.token)
    assert not await is_live(two, made.token)


async def test_a_stalled_server(pair: tuple[Sessions, Sessions], own_valkey: Valkey) -> None:
    one, two = pair
    made = await create(one)
    assert await is_live(two, made.token)
    own_valkey.pause()
    try:
        with refused("CACHE_UNAVAILABLE"):
            await revoke(one, made.session.session_id)
        assert await is_live(two, made.token)
    finally:
        own_valkey.resume()
    await connected(one, two)
    await revoke(two, made.session.session_id)
    assert not any([await is_live(each, made.token) for each in pair])


async def test_a_snapshot_from_before_the_revocation(pair: tuple[Sessions, Sessions], own_valkey: Valkey) -> None:
    one, two = pair
    made = await create(one)
    await is_live(two, made.token)
    assert await cached(two, made.token)
    own_valkey.command("SAVE")
    before = own_valkey.folder / "before.rdb"
    shutil.copy(own_valkey.folder / "dump.rdb", before)
    await revoke(one, made.session.session_id)
    await own_valkey.kill()
    shutil.copy(before, own_valkey.folder / "dump.rdb")
    await own_valkey.restart()
    await connected(one, two)
    assert own_valkey.command("KEYS", f"sess:{{{made.session.session_id}}}*"), "the snapshot holds the live entry"
    assert not any([await is_live(each, made.token) for each in pair * 2])


async def test_a_restart_between_fence_and_commit(
    pair: tuple[Sessions, Sessions], own_valkey: Valkey, store: WatchedStore
) -> None:
    """The fence is gone and a reader caches the session, live, just before the commit: then only the lift tells."""
    one, two = pair
    made = await create(one)
    session_id = made.session.session_id
    assert await is_live(two, made.token)

    async def restarted(writes: Sequence[Write]) -> None:
        if not any(isinstance(write, Update) for write in writes):
            return
        store.before = None
        await own_valkey.kill()
        await own_valkey.restart()
        await connected(one, two)
        await is_live(two, made.token)
        assert await cached(two, made.token)

    store.before = restarted
    await revoke(one, session_id)
    assert not any([await is_live(each, made.token) for each in pair])


async def test_a_change_that_could_not_be_told_is_not_called_done(
    pair: tuple[Sessions, Sessions], own_valkey: Valkey, store: WatchedStore
) -> None:
    """As before, and the server stalls for the lift, too: there is a stale entry, and nobody was told otherwise."""
    one, two = pair
    made = [await create(one) for _ in range(3)]

    async def restarted(_: Sequence[Write]) -> None:
        store.before = None
        await own_valkey.kill()
        await own_valkey.restart()
        await connected(one, two)
        for each in made:
            await is_live(two, each.token)
            assert await cached(two, each.token)
        own_valkey.pause()

    store.before = restarted
    with refused("CHANGE_UNCONFIRMED"):
        await revoke_all(one)
    own_valkey.resume()
    await connected(one, two)
    assert [await cached(two, each.token) for each in made] == [True] * 3, "stale, and said to be unconfirmed"
    # Any replica may be asked again, about one of them or about all.
    await revoke(two, made[0].session.session_id)
    assert not any([await is_live(each, made[0].token) for each in pair])
    assert await revoke_all(two) == 0
    assert not any([await is_live(each, old.token) for each in pair for old in made])
    assert one.sample("bas_sessions_unconfirmed_total") == 1


async def test_what_could_not_be_told_is_told_later(
    pair: tuple[Sessions, Sessions], own_valkey: Valkey, store: WatchedStore
) -> None:
    one, two = pair
    made = await create(one)

    async def restarted(_: Sequence[Write]) -> None:
        store.before = None
        await own_valkey.kill()
        await own_valkey.restart()
        await connected(one, two)
        await is_live(two, made.token)
        own_valkey.pause()

    store.before = restarted
    with refused("CHANGE_UNCONFIRMED"):
        await revoke(one, made.session.session_id)
    own_valkey.resume()
    await connected(one, two)
    assert await cached(two, made.token)
    telling = asyncio.create_task(_run(one))
    try:
        await eventually(lambda: _dead(two, made.token), "it is told")
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _run(sessions: Sessions) -> None:
    await sessions.module.background[1].run()


async def _dead(sessions: Sessions, token: str) -> bool:
    return not await is_live(sessions, token)


async def test_a_writer_that_dies_at_its_commit_leaves_nothing_stale(
    pair: tuple[Sessions, Sessions], store: WatchedStore
) -> None:
    """Not promised, as nobody was answered; the fence sees to it."""
    one, two = pair
    made = await create(one)
    await is_live(two, made.token)
    committed = asyncio.Event()

    async def die(_: Sequence[Write]) -> None:
        store.after = None
        committed.set()
        await asyncio.Event().wait()

    store.after = die
    dying = asyncio.create_task(revoke(one, made.session.session_id))
    await committed.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert not await is_live(two, made.token)


@pytest.mark.parametrize("how", ["dead url", "cut"])
async def test_one_replica_is_cut_off_and_another_is_not(store: WatchedStore, own_valkey: Valkey, how: str) -> None:
    clock = SystemClock()
    async with (
        passage(own_valkey.folder, own_valkey.url) as way,
        replica(store, own_valkey.url, clock, op_timeout=STALL) as near,
        replica(store, DEAD if how == "dead url" else way.url, clock, op_timeout=STALL) as far,
    ):
        with acting("acme"):
            made, kept = await create(near), await create(far)
            for each in (near, far):
                assert await is_live(each, made.token)
                assert await is_live(each, kept.token)
            if how == "cut":
                assert await cached(far, made.token)
                way.cut()
            await revoke(near, made.session.session_id)
            for each in (near, far):
                assert not await is_live(each, made.token)
                assert (await get(each, made.session.session_id)).HasField("revoke_time")
            with refused("CACHE_UNAVAILABLE"):
                await revoke(far, kept.session.session_id)
            assert await is_live(near, kept.token)
            if how == "cut":
                _mend(way)
                await connected(far)
                assert not await is_live(far, made.token)
                await revoke(far, kept.session.session_id)
                assert not await is_live(near, kept.token)


def _mend(way: Passage) -> None:
    way.mend()


async def test_a_replica_whose_first_call_is_a_revocation(store: WatchedStore, valkey: Valkey) -> None:
    async with replica(store, valkey.url, SystemClock()) as one, replica(store, valkey.url, SystemClock()) as two:
        with acting("acme"):
            made = await create(one)
            assert await is_live(one, made.token)
            await revoke(two, made.session.session_id)
            assert not await is_live(one, made.token)


async def test_changes_of_many_are_fenced_together(pair: tuple[Sessions, Sessions], store: WatchedStore) -> None:
    one, two = pair
    made = [await create(one) for _ in range(120)]
    assert all([await is_live(two, each.token) for each in made])
    assert all([await cached(two, each.token) for each in made])
    commits = store.commits
    assert await revoke_all(one, but=made[7].session.session_id) == 119
    assert store.commits - commits == 3
    assert [await is_live(two, each.token) for each in made].index(True) == 7
    assert not any([await is_live(two, each.token) for each in made[8:]])
    assert await revoke_all(two) == 1
    assert not await is_live(one, made[7].token)
    assert await revoke_all(two) == 0
    assert await revoke_all(two, "nobody") == 0


async def test_an_update_is_seen_at_once_by_all(pair: tuple[Sessions, Sessions]) -> None:
    one, two = pair
    session = (await create(one)).session
    for number in range(20):
        assert await get(two, session.session_id) == session
        session.metadata["n"] = str(number)
        session = await update(one, session, "metadata")
    assert await get(two, session.session_id) == session


async def test_revoking_survives_changes_in_between(pair: tuple[Sessions, Sessions], store: WatchedStore) -> None:
    one, two = pair
    made = [await create(one) for _ in range(3)]

    async def overtake(_: Sequence[Write]) -> None:
        store.before = None
        made[1].session.metadata["n"] = "1"
        await update(two, made[1].session, "metadata")

    store.before = overtake
    assert await revoke_all(one) == 3
    with pytest.raises(ApiError):
        await update(two, made[1].session, "metadata")
    assert not any([await is_live(two, each.token) for each in made])


async def test_a_change_that_lost_leaves_no_fence_behind(pair: tuple[Sessions, Sessions], store: WatchedStore) -> None:
    one, two = pair
    made = await create(one)

    async def overtake(_: Sequence[Write]) -> None:
        store.before = None
        made.session.metadata["n"] = "1"
        await update(two, made.session, "metadata")

    store.before = overtake
    with refused("ETAG_MISMATCH"):
        await update(one, Session(session_id=made.session.session_id, etag=made.session.etag, metadata={"n": "2"}))
    assert await is_live(two, made.token)
    assert await cached(two, made.token)


async def test_a_commit_that_may_have_been_done_leaves_its_fence(
    pair: tuple[Sessions, Sessions], store: WatchedStore
) -> None:
    """Its answer was lost. Until the fence ends by itself readers ask the store, and see what became of it."""
    one, two = pair
    made = await create(one)
    assert await is_live(two, made.token)

    async def lose(_: Sequence[Write]) -> None:
        store.after = None
        raise StoreTimeout

    store.after = lose
    with refused("STORE_TIMEOUT"):
        await revoke(one, made.session.session_id)
    assert not await is_live(two, made.token)
    await revoke(two, made.session.session_id)
    assert not await is_live(one, made.token)
