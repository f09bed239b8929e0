"""The cap on a user's sessions holds however many create at once, and frees a place when a session ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from bas.sessions.v2.sessions_service_pb2 import CreateSessionResponse
from chassis.clock import FakeClock, SystemClock
from chassis.config import Config
from chassis.config import Sessions as Settings
from chassis.errors import ApiError
from chassis.store.port import Write
from tests.integration.sessions.calls import authenticate, clean_up, create, get, is_live, listed, refused, revoke
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
from tests.support.valkey import Valkey

REJECT = Config(sessions=Settings(max_per_user=5))
DISPLACE = Config(sessions=Settings(max_per_user=5, at_limit="displace"))


async def live_ids(sessions: Sessions) -> list[str]:
    return [each.session_id for each in (await listed(sessions, filter="status = ACTIVE")).sessions]


@pytest.fixture
async def pair(
    store: WatchedStore, valkey: Valkey, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Sessions, Sessions]]:
    clock = SystemClock()
    async with (
        replica(store, valkey.url, clock, request.param) as one,
        replica(store, valkey.url, clock, request.param) as two,
    ):
        await one.connected()
        await two.connected()
        with acting("acme"):
            yield one, two


@pytest.mark.parametrize("pair", [REJECT], indirect=True)
async def test_one_too_many_is_refused_however_many_come_at_once(pair: tuple[Sessions, Sessions]) -> None:
    answers = await asyncio.gather(*(create(each) for each in pair * 15), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, CreateSessionResponse)]
    refusals = {answer.reason for answer in answers if isinstance(answer, ApiError)}
    assert (len(made), refusals) == (5, {"SESSION_LIMIT"})
    assert sorted(await live_ids(pair[0])) == sorted(each.session.session_id for each in made)
    await create(pair[0], "bob")
    for each in made[:2]:
        await revoke(pair[1], each.session.session_id)
    answers = await asyncio.gather(*(create(each) for each in pair * 5), return_exceptions=True)
    assert sum(isinstance(answer, CreateSessionResponse) for answer in answers) == 2
    assert len(await live_ids(pair[0])) == 5


@pytest.mark.parametrize("pair", [DISPLACE], indirect=True)
async def test_the_oldest_gives_way_however_many_come_at_once(pair: tuple[Sessions, Sessions]) -> None:
    made = [await create(pair[0]) for _ in range(5)]
    assert all([await is_live(pair[1], each.token) for each in made])
    newest = await create(pair[0])
    assert [await is_live(pair[1], each.token) for each in [*made, newest]] == [False, *[True] * 5]
    displaced = await get(pair[1], made[0].session.session_id)
    assert displaced.revoke_reason == "displaced by a newer session"
    await asyncio.gather(*(create(each) for each in pair * 8))
    assert len(await live_ids(pair[0])) == 5
    assert not any([await is_live(each, newest.token) for each in pair])


@pytest.mark.parametrize("pair", [Config(sessions=Settings(max_per_user=1))], indirect=True)
@pytest.mark.parametrize("used_before", [False, True])
async def test_two_replicas_that_want_the_same_place(
    pair: tuple[Sessions, Sessions], store: WatchedStore, *, used_before: bool
) -> None:
    """Each has seen the place free before the other commits."""
    if used_before:
        await revoke(pair[0], (await create(pair[0])).session.session_id)

    async def overtake(_: Sequence[Write]) -> None:
        store.before = None
        await create(pair[1])

    store.before = overtake
    with refused("SESSION_LIMIT"):
        await create(pair[0])
    assert len(await live_ids(pair[0])) == 1


@pytest.mark.parametrize("pair", [DISPLACE], indirect=True)
async def test_a_repeated_create_displaces_once(pair: tuple[Sessions, Sessions]) -> None:
    first = await create(pair[0], request_id="r0")
    answers = await asyncio.gather(*(create(each, request_id="r1") for each in pair * 5))
    assert len({answer.token for answer in answers}) == 1
    assert len(await live_ids(pair[0])) == 2
    assert await create(pair[1], request_id="r0") == first


async def test_a_session_that_timed_out_makes_room_and_stays_out(store: WatchedStore, valkey: Valkey) -> None:
    """A replica whose clock is behind must not bring back a session whose place was given away."""
    clock, behind = FakeClock(datetime.now(UTC)), FakeClock(datetime.now(UTC))
    config = Config(sessions=Settings(max_per_user=1))
    async with replica(store, valkey.url, clock, config) as one, replica(store, valkey.url, behind, config) as two:
        with acting("acme"):
            made = await create(one, idle=10)
            assert await is_live(two, made.token)
            with refused("SESSION_LIMIT"):
                await create(one)
            await clock.advance(11)
            second = await create(one)
            assert await is_live(two, second.token)
            assert not await is_live(two, made.token)
            await clock.advance(20)
            assert (await clean_up(one)).removed_count == 1
            with refused("SESSION_LIMIT"):
                await create(one)
            assert (await authenticate(one, second.token)).session.session_id == second.session.session_id
