"""Every change of a user commits its events, and a removal commits that the user's sessions are to end."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from bas.users.v2.users_pb2 import User
from chassis.clock import SystemClock
from chassis.errors import unavailable
from chassis.outbox.announcements import Announcements
from chassis.outbox.port import EVENT, Behind, Effect
from chassis.store.port import StoreUnavailable
from services.users.effects import REVOKE_SESSIONS
from services.users.sessions import TOGETHER, Revocations
from tests.integration.users import calls
from tests.integration.users.calls import create, delete, refused, update
from tests.integration.users.conftest import CountingStore, RecordingRevoker, Users, replica
from tests.support.outbox import LosingStore, RecordingOutbox, Told
from tests.support.valkey import Valkey

Act: TypeAlias = Callable[[], Awaitable[object]]
AWAY = unavailable("PEER_AWAY", "not now")


@dataclass(frozen=True, slots=True)
class Watched:
    """A replica whose outbox is looked into."""

    users: Users
    store: LosingStore
    outbox: RecordingOutbox

    async def told(self) -> list[Told]:
        return await self.outbox.told(self.store)

    async def types(self) -> list[str]:
        return await self.outbox.types(self.store)

    async def owed(self) -> list[Effect]:
        """Revocations that were committed."""
        return [each for each in await self.outbox.committed(self.store) if each.kind == REVOKE_SESSIONS]

    async def deliver(self, *effects: Effect) -> list[BaseException | None]:
        return list(await self.users.module.deliver[REVOKE_SESSIONS](effects))


@pytest.fixture
async def watched(store: CountingStore, valkey: Valkey) -> AsyncIterator[Watched]:
    lossy, outbox = LosingStore(store), RecordingOutbox()
    async with replica(CountingStore(lossy), valkey, SystemClock(), outbox=outbox) as users:
        with users.tenant("acme"):
            yield Watched(users, lossy, outbox)


async def test_the_life_of_a_user_is_told_in_order_and_without_who_it_is(watched: Watched) -> None:
    users = watched.users
    await create(users, email="ada@example.com", display_name="Ada", metadata={"phone": "5551234"})
    await update(users, User(user_id="u1", email="lovelace@example.com"), "email")
    await delete(users)
    told = await watched.told()
    assert [each.type for each in told] == ["user.created", "user.updated", "user.deleted"]
    assert {(each.tenant, each.subject, each.source) for each in told} == {("acme", "users/u1", "/bas/users")}
    assert {(each.data["actor"], each.data["requestId"]) for each in told} == {("tester", "r1")}
    assert len({each.key for each in told}) == 1
    assert told[1].data["changedPaths"] == ["email"]
    assert told[2].data["user"] == {"userId": "u1"}
    assert watched.outbox.wakes == len(told)
    payloads = b"".join(effect.payload for effect in watched.outbox.handed)
    assert not any(word in payloads for word in (b"ada@", b"Ada", b"lovelace", b"555"))


async def test_what_changes_nothing_tells_nothing(watched: Watched) -> None:
    users = watched.users
    made = await create(users, request_id="q1", display_name="Ada")
    wakes = watched.outbox.wakes
    assert await create(users, request_id="q1", display_name="Ada") == made
    await update(users, User(user_id="u1", display_name="Ada"), "display_name")
    await calls.get(users)
    await calls.lookup(users)
    await delete(users, "nobody", allow_missing=True)
    assert watched.outbox.wakes == wakes
    refusals: list[tuple[str, Act]] = [
        ("USER_ALREADY_EXISTS", lambda: create(users, email="other@example.com")),
        ("USER_EMAIL_TAKEN", lambda: create(users, "u2", "U1@example.com")),
        ("USER_NOT_FOUND", lambda: delete(users, "nobody")),
        ("ETAG_MISMATCH", lambda: delete(users, etag="stale")),
    ]
    for reason, act in refusals:
        with refused(reason):
            await act()
    assert await watched.types() == ["user.created"]
    assert await watched.owed() == []


async def test_an_update_that_makes_a_user_is_told_as_that(watched: Watched) -> None:
    await update(watched.users, User(user_id="u1", email="ada@example.com"), "email", allow_missing=True)
    assert await watched.types() == ["user.created"]


async def test_a_change_that_was_not_committed_is_not_told_and_ends_no_session(watched: Watched) -> None:
    users = watched.users
    await create(users)
    acts: list[Act] = [
        lambda: create(users, "u2"),
        lambda: update(users, User(user_id="u1", display_name="Ada"), "display_name"),
        lambda: delete(users),
    ]
    for act in acts:
        watched.store.failure = StoreUnavailable()
        with refused("STORE_UNAVAILABLE"):
            await act()
    assert await watched.types() == ["user.created"]
    assert await watched.owed() == []
    assert users.sessions.revoked == []


async def test_a_change_whose_answer_was_lost_is_told_once_also_when_it_is_repeated(watched: Watched) -> None:
    users = watched.users
    acts: list[Act] = [
        lambda: create(users, request_id="q1"),
        lambda: update(users, User(user_id="u1", display_name="Ada"), "display_name"),
        lambda: delete(users, allow_missing=True),
    ]
    for act in acts:
        watched.store.lost = 1
        wakes = watched.outbox.wakes
        with refused("STORE_TIMEOUT"):
            await act()
        assert watched.outbox.wakes > wakes
        await act()
    assert await watched.types() == ["user.created", "user.updated", "user.deleted"]
    assert len(await watched.owed()) == 1


class TestSessionsOfWhoIsRemoved:
    async def test_they_end_at_once_and_the_outbox_does_not_end_them_again(self, watched: Watched) -> None:
        await create(watched.users)
        await delete(watched.users)
        assert watched.users.sessions.revoked == [("acme", "u1")]
        (owed,) = await watched.owed()
        assert await watched.deliver(owed) == [None]
        assert watched.users.sessions.revoked == [("acme", "u1")]

    async def test_another_process_ends_them_again(self, watched: Watched, valkey: Valkey) -> None:
        await create(watched.users)
        await delete(watched.users)
        async with replica(CountingStore(watched.store), valkey, SystemClock(), outbox=watched.outbox) as other:
            assert list(await other.module.deliver[REVOKE_SESSIONS](await watched.owed())) == [None]
            assert other.sessions.revoked == [("acme", "u1")]

    async def test_while_the_sessions_service_is_away_the_removal_stands_and_the_outbox_ends_them(
        self, watched: Watched
    ) -> None:
        sessions = watched.users.sessions
        await create(watched.users)
        sessions.failure = AWAY
        wakes = watched.outbox.wakes
        await delete(watched.users)
        assert watched.outbox.wakes > wakes
        with refused("USER_NOT_FOUND"):
            await delete(watched.users)
        await delete(watched.users, allow_missing=True)
        (owed,) = await watched.owed()
        assert await watched.deliver(owed) == [AWAY]
        sessions.failure = None
        assert await watched.deliver(owed) == [None]
        assert sessions.revoked == [("acme", "u1")]

    async def test_a_service_that_hangs_keeps_no_removal(self) -> None:
        hanging, outbox = RecordingRevoker(), RecordingOutbox()
        announcements = Announcements("users", outbox, SystemClock(), os.urandom)
        revocations = Revocations(hanging, announcements, SystemClock(), patience=0.01)
        hanging.go.clear()
        owed = revocations.promised("acme", "u1")
        await revocations.at_once(owed)
        assert hanging.revoked == []
        assert outbox.wakes == 1
        hanging.go.set()
        assert await revocations([owed]) == [None]
        assert hanging.revoked == [("acme", "u1")]

    async def test_the_outbox_waits_for_what_is_under_way(self, watched: Watched) -> None:
        sessions = watched.users.sessions
        await create(watched.users)
        sessions.go.clear()
        removing = asyncio.create_task(delete(watched.users))
        await sessions.begun.wait()
        (owed,) = await watched.owed()
        delivering = asyncio.create_task(watched.deliver(owed))
        sessions.go.set()
        await removing
        assert await delivering == [None]
        assert sessions.revoked == [("acme", "u1")]

    async def test_many_are_ended_each_by_itself(self, watched: Watched) -> None:
        effects = [Effect(f"e{n}", REVOKE_SESSIONS, "acme", f"k{n}", f"u{n}".encode()) for n in range(40)]
        assert await watched.deliver(*effects) == [None] * 40
        assert sorted(watched.users.sessions.revoked) == sorted(("acme", f"u{n}") for n in range(40))

    async def test_where_nobody_is_there_not_all_are_tried(self, watched: Watched) -> None:
        watched.users.sessions.failure = AWAY
        effects = [Effect(f"e{n}", REVOKE_SESSIONS, "acme", f"k{n}", f"u{n}".encode()) for n in range(40)]
        answers = await watched.deliver(*effects)
        assert answers.count(AWAY) == TOGETHER
        assert all(isinstance(each, Behind) for each in answers[TOGETHER:])

    async def test_what_comes_after_a_failure_of_the_same_user_waits(self, watched: Watched) -> None:
        watched.users.sessions.failure = AWAY
        one, two = (Effect(each, REVOKE_SESSIONS, "acme", "k", b"u1") for each in ("e1", "e2"))
        first, second = await watched.deliver(one, two)
        assert first is AWAY
        assert isinstance(second, Behind)

    async def test_without_such_an_outbox_a_removal_says_that_they_have_not_ended(
        self, store: CountingStore, valkey: Valkey
    ) -> None:
        outbox = RecordingOutbox([EVENT])
        async with replica(store, valkey, SystemClock(), outbox=outbox) as users:
            with users.tenant("acme"):
                await create(users)
                users.sessions.failure = AWAY
                with refused("SESSIONS_NOT_REVOKED"):
                    await delete(users)
                assert await outbox.types(store) == ["user.created", "user.deleted"]
                users.sessions.failure = None
                await delete(users, allow_missing=True)
                assert users.sessions.revoked == [("acme", "u1")]
