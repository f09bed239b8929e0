"""Every change of a session commits its events, and nothing else does, with an outbox that nobody empties."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import TypeAlias

import pytest

from bas.sessions.v2.sessions_pb2 import Session
from chassis.clock import FakeClock
from chassis.config import Config
from chassis.store.port import StoreUnavailable
from services.sessions import session as rules
from services.sessions.cleanup import TOGETHER
from tests.integration.sessions import calls
from tests.integration.sessions.calls import authenticate, clean_up, create, refresh, refused, revoke
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting, replica
from tests.support.outbox import LosingStore, RecordingOutbox, Told
from tests.support.valkey import Valkey

Act: TypeAlias = Callable[[], Awaitable[object]]
DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A replica whose outbox is looked into."""

    sessions: Sessions
    store: LosingStore
    outbox: RecordingOutbox
    clock: FakeClock

    async def told(self) -> list[Told]:
        return await self.outbox.told(self.store)

    async def types(self) -> list[str]:
        return await self.outbox.types(self.store)


@asynccontextmanager
async def watching(store: WatchedStore, valkey: Valkey, config: Config | None = None) -> AsyncIterator[Watched]:
    lossy, outbox, clock = LosingStore(store), RecordingOutbox(), FakeClock()
    async with replica(WatchedStore(lossy), valkey.url, clock, config, outbox=outbox) as sessions:
        await sessions.connected()
        with acting("acme"):
            yield Watched(sessions, lossy, outbox, clock)


@pytest.fixture
async def watched(store: WatchedStore, valkey: Valkey) -> AsyncIterator[Watched]:
    async with watching(store, valkey) as made:
        yield made


async def test_the_life_of_a_session_is_told_in_order_and_without_its_tokens(watched: Watched) -> None:
    sessions = watched.sessions
    made = await create(sessions, metadata={"app": "web"})
    session_id = made.session.session_id
    await calls.update(sessions, Session(session_id=session_id, metadata={"app": "phone"}), "metadata")
    refreshed = await refresh(sessions, made.token)
    await revoke(sessions, session_id, "lost phone")
    told = await watched.told()
    assert [each.type for each in told] == [
        "session.created",
        "session.updated",
        "session.refreshed",
        "session.revoked",
    ]
    assert {(each.tenant, each.subject, each.source) for each in told} == {
        ("acme", f"sessions/{session_id}", "/bas/sessions")
    }
    assert {(each.data["actor"], each.data["requestId"]) for each in told} == {("tester", "r1")}
    assert len({each.key for each in told}) == 1
    assert told[1].data["changedPaths"] == ["metadata"]
    assert told[3].data["reason"] == "lost phone"
    assert watched.outbox.wakes == len(told)
    payloads = b"".join(effect.payload for effect in watched.outbox.handed)
    for token in (made.token, refreshed.token):
        assert token.rpartition("_")[2].encode() not in payloads
    assert b"digest" not in payloads


async def test_what_changes_nothing_tells_nothing(watched: Watched) -> None:
    sessions = watched.sessions
    made = await create(sessions, request_id="q1")
    session_id = made.session.session_id
    successor = await refresh(sessions, made.token)
    wakes = watched.outbox.wakes
    assert (await create(sessions, request_id="q1")).token == made.token
    assert (await refresh(sessions, made.token)).token == successor.token
    commits = sessions.store.commits
    await watched.clock.advance(20)
    await authenticate(sessions, successor.token)
    await watched.clock.advance(100)
    await authenticate(sessions, successor.token)
    await sessions.touched()
    assert sessions.store.commits == commits + 1  # that it is in use
    await calls.update(sessions, Session(session_id=session_id), "metadata")
    await calls.get(sessions, session_id)
    await calls.listed(sessions)
    await clean_up(sessions)
    refusals: list[tuple[str, Act]] = [
        ("SESSION_INVALID", lambda: authenticate(sessions, "bas_nobody_x")),
        ("SESSION_NOT_FOUND", lambda: revoke(sessions, "nobody")),
        ("ETAG_MISMATCH", lambda: calls.update(sessions, Session(session_id=session_id, etag="stale"), "metadata")),
    ]
    for reason, act in refusals:
        with refused(reason):
            await act()
    assert await watched.types() == ["session.created", "session.refreshed"]
    assert watched.outbox.wakes == wakes
    await revoke(sessions, session_id)
    await revoke(sessions, session_id, "again")
    assert (await watched.types())[2:] == ["session.revoked"]


async def test_a_theft_is_told_once_with_the_revocation(watched: Watched) -> None:
    sessions = watched.sessions
    made = await create(sessions)
    await refresh(sessions, made.token)
    await watched.clock.advance(40)
    for act in (authenticate, refresh, authenticate):
        with refused("SESSION_INVALID"):
            await act(sessions, made.token)
    told = (await watched.told())[2:]
    assert [each.type for each in told] == ["session.theft_detected", "session.revoked"]
    assert told[0].data["session"]["status"] == "SESSION_STATUS_ACTIVE"
    assert told[1].data["session"]["status"] == "SESSION_STATUS_REVOKED"
    assert told[1].data["reason"] == rules.STOLEN
    assert told[0].key == told[1].key


async def test_all_of_a_users_sessions_are_told_one_by_one(watched: Watched) -> None:
    ids = [(await create(watched.sessions)).session.session_id for _ in range(TOGETHER + 3)]
    assert await calls.revoke_all(watched.sessions, but=ids[0]) == len(ids) - 1
    assert await calls.revoke_all(watched.sessions, but=ids[0]) == 0
    told = (await watched.told())[len(ids) :]
    assert {each.type for each in told} == {"session.revoked"}
    assert sorted(each.subject for each in told) == sorted(f"sessions/{each}" for each in ids[1:])


async def test_what_expired_is_told_once_by_whoever_cleans_up(
    watched: Watched, store: WatchedStore, valkey: Valkey
) -> None:
    sessions, clock = watched.sessions, watched.clock
    made = [await create(sessions, idle=3600) for _ in range(TOGETHER + 3)]
    await revoke(sessions, made[0].session.session_id)
    await clock.advance(10 * DAY)
    await revoke(sessions, made[1].session.session_id, "too late")  # written down as expired
    async with replica(WatchedStore(watched.store), valkey.url, clock, outbox=watched.outbox) as other:
        await other.connected()
        rounds = (asyncio.create_task(each.cleanup.some(0), context=Context()) for each in (sessions, other))
        await asyncio.gather(*rounds)
    told = (await watched.told())[len(made) + 1 :]
    assert {each.type for each in told} == {"session.expired"}
    assert sorted(each.subject for each in told) == sorted(f"sessions/{each.session.session_id}" for each in made[1:])
    by_subject = {each.subject: each.data for each in told}
    assert by_subject[f"sessions/{made[2].session.session_id}"]["actor"] == "service:sessions"
    assert all(data["session"]["status"] == "SESSION_STATUS_EXPIRED" for data in by_subject.values())


async def test_who_is_displaced_is_told_in_the_commit_of_who_comes(store: WatchedStore, valkey: Valkey) -> None:
    config = Config()
    config = replaced(config, sessions=replaced(config.sessions, max_per_user=1, at_limit="displace"))
    async with watching(store, valkey, config) as watched:
        first = (await create(watched.sessions)).session.session_id
        commits = watched.sessions.store.commits
        second = (await create(watched.sessions)).session.session_id
        assert watched.sessions.store.commits == commits + 1
        told = (await watched.told())[1:]
        assert [(each.type, each.subject) for each in told] == [
            ("session.revoked", f"sessions/{first}"),
            ("session.created", f"sessions/{second}"),
        ]
        assert told[0].data["reason"] == rules.DISPLACED


async def test_a_change_that_was_not_committed_is_not_told(watched: Watched) -> None:
    sessions = watched.sessions
    made = await create(sessions)
    session_id = made.session.session_id
    acts: list[Act] = [
        lambda: create(sessions),
        lambda: refresh(sessions, made.token),
        lambda: revoke(sessions, session_id),
        lambda: calls.revoke_all(sessions),
    ]
    for act in acts:
        watched.store.failure = StoreUnavailable()
        with refused("STORE_UNAVAILABLE"):
            await act()
    assert await watched.types() == ["session.created"]


async def test_a_change_whose_answer_was_lost_is_told_once_also_when_it_is_repeated(watched: Watched) -> None:
    sessions = watched.sessions
    tokens: list[str] = []

    async def make() -> None:
        tokens.append((await create(sessions, request_id="q1")).token)

    async def end() -> None:
        await revoke(sessions, tokens[0].split("_")[1])

    for act in (make, lambda: refresh(sessions, tokens[0]), end):
        watched.store.lost = 1
        wakes = watched.outbox.wakes
        with refused("STORE_TIMEOUT"):
            await act()
        assert watched.outbox.wakes > wakes
        await act()
    assert await watched.types() == ["session.created", "session.refreshed", "session.revoked"]


async def test_of_refreshes_that_race_one_is_told(watched: Watched) -> None:
    made = await create(watched.sessions)
    answers = await asyncio.gather(*(refresh(watched.sessions, made.token) for _ in range(5)))
    assert len({answer.token for answer in answers}) == 1
    assert await watched.types() == ["session.created", "session.refreshed"]
