"""Refreshing: rotation without forks, a grace for lost answers, theft, and revocations that win."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_REVOKED
from bas.sessions.v2.sessions_service_pb2 import RefreshSessionResponse
from chassis.clock import FakeClock, SystemClock
from chassis.errors import ApiError
from chassis.store.port import Update, Write
from tests.integration.sessions.calls import authenticate, create, get, is_live, refresh, refused, revoke
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
from tests.support.valkey import Valkey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


async def test_a_refreshed_session_goes_on_with_the_new_token(
    store: WatchedStore, valkey: Valkey, clock: FakeClock
) -> None:
    async with replica(store, valkey.url, clock) as sessions:
        with acting("acme"):
            made = await create(sessions)
            await authenticate(sessions, made.token)
            await clock.advance(5)
            refreshed = await refresh(sessions, made.token)
            assert refreshed.token != made.token
            assert refreshed.session.last_seen_time.ToDatetime(UTC) == clock.now()
            assert (await authenticate(sessions, refreshed.token)).session == refreshed.session
            await clock.advance(30)
            # The answer was lost, or a request was on its way: for the grace, the old token is as good.
            assert await is_live(sessions, made.token)
            assert await refresh(sessions, made.token) == refreshed


@pytest.mark.parametrize("how", ["refresh", "authenticate"])
async def test_a_token_used_after_its_grace_ends_the_session(
    store: WatchedStore, valkey: Valkey, clock: FakeClock, how: str
) -> None:
    async with replica(store, valkey.url, clock) as sessions, replica(store, valkey.url, clock) as other:
        with acting("acme"):
            made = await create(sessions)
            refreshed = await refresh(sessions, made.token)
            await clock.advance(30.001)
            assert await is_live(other, refreshed.token)
            with refused("SESSION_INVALID"):
                await (refresh if how == "refresh" else authenticate)(sessions, made.token)
            assert not await is_live(other, refreshed.token)
            with refused("SESSION_INVALID"):
                await refresh(other, refreshed.token)
            over = await get(other, made.session.session_id)
            assert (over.status, over.revoke_reason) == (
                SESSION_STATUS_REVOKED,
                "token used after it was exchanged",
            )
            assert sessions.sample("bas_sessions_thefts_total", outcome="revoked") == 1
            with refused("SESSION_INVALID"):
                await refresh(other, made.token)
            assert sessions.sample("bas_sessions_thefts_total", outcome="revoked") == 1


async def test_racing_refreshes_get_one_successor(store: WatchedStore, valkey: Valkey) -> None:
    clock = SystemClock()
    async with replica(store, valkey.url, clock) as sessions, replica(store, valkey.url, clock) as other:
        with acting("acme"):
            token = (await create(sessions)).token
            for _ in range(5):
                answers = await asyncio.gather(*(refresh(each, token) for each in (sessions, other) * 5))
                (token,) = {answer.token for answer in answers}
                assert all(await asyncio.gather(*(is_live(each, token) for each in (sessions, other))))


async def test_a_lost_race_and_a_lost_chain_lead_to_the_same_token(sessions: Sessions) -> None:
    """Who is two exchanges behind, within the grace, follows the same successors."""
    first = (await create(sessions)).token
    second = (await refresh(sessions, first)).token
    third = (await refresh(sessions, second)).token
    assert (await refresh(sessions, first)).token == second
    assert (await refresh(sessions, second)).token == third
    assert await is_live(sessions, third)


async def test_refreshing_without_end_is_refused_and_loses_nothing(sessions: Sessions) -> None:
    tokens = [(await create(sessions)).token]
    for _ in range(8):
        tokens.append((await refresh(sessions, tokens[-1])).token)
    with refused("REFRESHED_TOO_OFTEN"):
        await refresh(sessions, tokens[-1])
    assert (await refresh(sessions, tokens[0])).token == tokens[1]
    assert await is_live(sessions, tokens[-1])


@pytest.mark.parametrize("first", ["revoke", "refresh"])
async def test_a_revoke_that_races_a_refresh_wins(store: WatchedStore, valkey: Valkey, first: str) -> None:
    """Each has read the session before the other commits."""
    clock = SystemClock()
    async with replica(store, valkey.url, clock) as sessions, replica(store, valkey.url, clock) as other:
        with acting("acme"):
            made = await create(sessions)
            session_id = made.session.session_id
            overtaken: list[RefreshSessionResponse | None] = []

            async def overtake(writes: Sequence[Write]) -> None:
                if any(isinstance(write, Update) for write in writes):
                    store.before = None
                    if first == "revoke":
                        await revoke(other, session_id)
                    else:
                        overtaken.append(await refresh(other, made.token))

            store.before = overtake
            if first == "revoke":
                with refused("SESSION_INVALID"):
                    await refresh(sessions, made.token)
            else:
                await revoke(sessions, session_id)
                (refreshed,) = overtaken
                assert refreshed is not None
                assert not await is_live(other, refreshed.token)
            assert not await is_live(sessions, made.token)
            assert (await get(other, session_id)).status == SESSION_STATUS_REVOKED


async def test_a_refresh_whose_answer_was_lost_loses_no_session(store: WatchedStore, own_valkey: Valkey) -> None:
    """The cache goes away between commit and answer: the caller is told so, tries again, and gets what it missed."""
    async with replica(store, own_valkey.url, SystemClock()) as sessions:
        with acting("acme"):
            made = await create(sessions)
            await authenticate(sessions, made.token)

            async def stop(_: Sequence[Write]) -> None:
                store.after = None
                await own_valkey.kill()

            store.after = stop
            with refused("CHANGE_UNCONFIRMED"):
                await refresh(sessions, made.token)
            with pytest.raises(ApiError):
                await refresh(sessions, made.token)
            await own_valkey.restart()
            refreshed = await _until_connected(sessions, made.token)
            assert await is_live(sessions, refreshed.token)
            assert await get(sessions, made.session.session_id) == refreshed.session


async def _until_connected(sessions: Sessions, token: str) -> RefreshSessionResponse:
    for _ in range(1500):
        try:
            return await refresh(sessions, token)
        except ApiError as failure:
            if failure.reason != "CACHE_UNAVAILABLE":
                raise
            await asyncio.sleep(0.02)
    raise AssertionError("the cache did not come back")
