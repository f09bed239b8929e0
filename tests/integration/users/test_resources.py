"""Creating, reading, finding, changing and removing users."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from bas.users.v2.users_pb2 import User
from chassis.cache.readthrough import LeaseReadThrough
from chassis.clock import FakeClock, SystemClock
from chassis.config import CacheTtl
from chassis.errors import ApiError, Code, unavailable
from chassis.store.landing import Landings
from chassis.store.port import StoreUnavailable
from services.users import module
from services.users.records import user_key
from tests.integration.users.calls import batch, create, delete, get, lookup, refused, update
from tests.integration.users.conftest import CountingStore, Users, replica
from tests.support.eventually import eventually
from tests.support.valkey import Valkey

T = TypeVar("T")


async def test_a_created_user_is_read_and_found_as_it_was_answered(users: Users) -> None:
    made = await create(users, email="Ada@Example.com", display_name="Ada", metadata={"plan": "pro"})
    assert made.etag
    assert made.email == "Ada@Example.com"
    assert made.create_time == made.update_time
    for _ in range(2):
        assert await get(users) == made
        assert await lookup(users, "ada@example.COM") == made
    with refused("USER_ALREADY_EXISTS"):
        await create(users, email="other@example.com")


async def test_an_id_that_is_left_out_is_made(users: Users) -> None:
    one, other = await create(users, "", "a@b.c"), await create(users, "", "d@b.c")
    assert one.user_id != other.user_id
    assert await get(users, one.user_id) == one


async def test_a_created_user_is_found_where_it_was_missed_before(users: Users) -> None:
    with refused("USER_NOT_FOUND"):
        await get(users)
    with refused("USER_NOT_FOUND"):
        await lookup(users)
    made = await create(users)
    assert await get(users) == made
    assert await lookup(users) == made


async def test_another_tenants_user_is_missing_in_the_same_words(users: Users) -> None:
    theirs = await create(users, "theirs")
    with users.tenant("other"):
        for call in (
            get(users, "theirs"),
            update(users, User(user_id="theirs", display_name="x"), "display_name"),
            delete(users, "theirs"),
        ):
            with pytest.raises(ApiError) as refusal:
                await call
            assert (refusal.value.code, refusal.value.reason) == (Code.NOT_FOUND, "USER_NOT_FOUND")
            assert refusal.value.message == "There is no user 'theirs'."
            assert not refusal.value.metadata
        with pytest.raises(ApiError) as refusal:
            await lookup(users, "theirs@example.com")
        with pytest.raises(ApiError) as nobody:
            await lookup(users, "nobody@example.com")
        assert repr(refusal.value) == repr(nobody.value)
        mine = await create(users, "theirs", display_name="mine")
        assert await get(users, "theirs") == await lookup(users, "theirs@example.com") == mine
    assert await get(users, "theirs") == await lookup(users, "theirs@example.com") == theirs
    assert users.sessions.revoked == [("other", "theirs")]


@pytest.mark.parametrize("pair", [("a.b", "c", "a", "b.c"), ("a-b", "c", "a", "b-c"), ("a~", "b", "a", "~b")])
async def test_no_two_tenants_share_a_key(users: Users, pair: tuple[str, str, str, str]) -> None:
    tenant, user_id, other_tenant, other_id = pair
    with users.tenant(tenant):
        await create(users, user_id)
        await get(users, user_id)
    with users.tenant(other_tenant), refused("USER_NOT_FOUND"):
        await get(users, other_id)


class TestBatch:
    async def test_users_and_missing_ids_in_the_order_of_the_request(self, users: Users, store: CountingStore) -> None:
        made = {user_id: await create(users, user_id) for user_id in ("u1", "u2", "u3")}
        await get(users, "u2")
        reads = store.reads
        answer = await batch(users, "u3", "none", "u2", "u3", "u1", "gone", "none")
        assert [user.user_id for user in answer.users] == ["u3", "u2", "u1"]
        assert list(answer.users) == [made["u3"], made["u2"], made["u1"]]
        assert list(answer.missing_ids) == ["none", "gone"]
        assert store.reads == reads + 1
        assert await batch(users, "u3", "none", "u2", "u1", "gone") == answer
        assert store.reads == reads + 1

    async def test_a_foreign_id_is_missing_like_any_other(self, users: Users) -> None:
        await create(users, "mine")
        with users.tenant("other"):
            await create(users, "theirs")
            await get(users, "theirs")
        answer = await batch(users, "theirs", "mine", "none")
        assert [user.user_id for user in answer.users] == ["mine"]
        assert list(answer.missing_ids) == ["theirs", "none"]

    async def test_it_is_as_coherent_as_a_read(self, users: Users) -> None:
        await create(users)
        await batch(users, "u1", "u2")
        await update(users, User(user_id="u1", display_name="new"), "display_name")
        await create(users, "u2")
        answer = await batch(users, "u1", "u2")
        assert [user.display_name for user in answer.users] == ["new", ""]
        await delete(users)
        assert list((await batch(users, "u1")).missing_ids) == ["u1"]

    async def test_users_that_fit_no_answer_are_refused(self, users: Users) -> None:
        large = {f"k{n}": "v" * 1024 for n in range(64)}
        user_ids = [f"u{n}" for n in range(70)]
        await asyncio.gather(*(create(users, user_id, metadata=large) for user_id in user_ids))
        with pytest.raises(ApiError) as refusal:
            await batch(users, *user_ids)
        assert refusal.value.violations[0].field == "user_ids"
        assert len((await batch(users, *user_ids[:50])).users) == 50


class TestRequestId:
    async def test_a_repetition_returns_the_first_answer(self, users: Users, store: CountingStore) -> None:
        first = await create(users, "", "ada@example.com", request_id="r1")
        written = store.commits
        await update(users, User(user_id=first.user_id, email="other@example.com"), "email")
        assert await create(users, "", "ada@example.com", request_id="r1") == first
        assert store.commits == written + 1

    async def test_it_does_so_with_a_given_id_and_when_the_user_is_gone(self, users: Users) -> None:
        first = await create(users, request_id="r1")
        assert await create(users, request_id="r1") == first
        await delete(users)
        assert await create(users, request_id="r1") == first
        with refused("USER_NOT_FOUND"):
            await get(users)

    async def test_it_belongs_to_one_request(self, users: Users) -> None:
        await create(users, request_id="r1")
        with refused("REQUEST_ID_REUSED"):
            await create(users, "u2", request_id="r1")
        with users.tenant("other"):
            await create(users, "u2", request_id="r1")

    async def test_another_request_for_the_same_user_or_address_is_a_stranger(self, users: Users) -> None:
        await create(users, request_id="r1")
        with refused("USER_ALREADY_EXISTS"):
            await create(users, request_id="r2")
        with refused("USER_EMAIL_TAKEN"):
            await create(users, "u2", "u1@example.com", request_id="r2")

    async def test_twins_make_one_user(self, users: Users) -> None:
        answers = await asyncio.gather(*(create(users, "", "ada@b.c", request_id="r1") for _ in range(10)))
        assert len({answer.user_id for answer in answers}) == 1
        assert len({answer.etag for answer in answers}) == 1

    async def test_an_answer_is_kept_for_a_day(self, store: CountingStore, valkey: Valkey) -> None:
        clock = FakeClock()
        async with replica(store, valkey, clock) as users:
            with users.tenant("acme"):
                first = await create(users, "", "a@b.c", request_id="r1")
                await delete(users, first.user_id)
                await clock.advance(24 * 3600)
                assert (await create(users, "", "a@b.c", request_id="r1")).user_id != first.user_id


class TestUpdate:
    async def test_the_mask_says_what_changes(self, users: Users) -> None:
        made = await create(users, display_name="a", metadata={"k": "v"})
        changed = await update(users, User(user_id="u1", display_name="b", email="x@y.z"), "display_name")
        assert (changed.display_name, changed.email) == ("b", made.email)
        assert changed.etag != made.etag
        assert changed.create_time == made.create_time
        assert await get(users) == await lookup(users) == changed
        assert not (await update(users, User(user_id="u1"), "metadata")).metadata

    async def test_all_of_it(self, users: Users) -> None:
        await create(users, display_name="a", metadata={"k": "v"})
        changed = await update(users, User(user_id="u1", email="new@b.c"), "*")
        assert (changed.email, changed.display_name, dict(changed.metadata)) == ("new@b.c", "", {})

    @pytest.mark.parametrize("paths", [("create_time",), ("nope",), ("email.x",), ("*", "email")])
    async def test_what_a_mask_cannot_name(self, users: Users, paths: tuple[str, ...]) -> None:
        await create(users)
        with refused("INVALID_ARGUMENT"):
            await update(users, User(user_id="u1", display_name="x"), *paths)

    @pytest.mark.parametrize("path", ["email", "*"])
    async def test_the_address_cannot_be_cleared(self, users: Users, path: str) -> None:
        made = await create(users)
        with pytest.raises(ApiError) as refusal:
            await update(users, User(user_id="u1", display_name="x"), path)
        assert refusal.value.violations[0].field == "user.email"
        assert await get(users) == made

    async def test_nothing_is_written_when_nothing_changes(self, users: Users, store: CountingStore) -> None:
        made = await create(users, display_name="a")
        written = store.commits
        assert await update(users, User(user_id="u1", display_name="a"), "display_name") == made
        assert store.commits == written

    async def test_an_old_etag_is_refused(self, users: Users) -> None:
        made = await create(users)
        current = await update(users, User(user_id="u1", display_name="a", etag=made.etag), "display_name")
        with refused("ETAG_MISMATCH"):
            await update(users, User(user_id="u1", display_name="b", etag=made.etag), "display_name")
        await update(users, User(user_id="u1", display_name="b", etag=current.etag), "display_name")

    async def test_of_many_with_the_same_etag_exactly_one_wins(self, users: Users) -> None:
        made = await create(users)
        answers = await asyncio.gather(
            *(update(users, User(user_id="u1", email=f"t{n}@b.c", etag=made.etag), "email") for n in range(20)),
            return_exceptions=True,
        )
        won = [answer for answer in answers if isinstance(answer, User)]
        lost = [answer for answer in answers if isinstance(answer, ApiError)]
        assert len(won) == 1
        assert {failure.reason for failure in lost} == {"ETAG_MISMATCH"}
        assert await get(users) == await lookup(users, won[0].email) == won[0]

    async def test_without_etag_no_change_is_lost(self, users: Users) -> None:
        await create(users)
        await asyncio.gather(
            *(update(users, User(user_id="u1", metadata={f"k{n}": "v"}), f"metadata.k{n}") for n in range(8))
        )
        assert set((await get(users)).metadata) == {f"k{n}" for n in range(8)}

    async def test_a_mask_does_not_get_more_entries_in_than_there_may_be(self, users: Users) -> None:
        await create(users, metadata={f"k{n}": "v" for n in range(64)})
        with pytest.raises(ApiError) as refusal:
            await update(users, User(user_id="u1", metadata={"more": "v"}), "metadata.more")
        assert refusal.value.violations[0].field == "user.metadata"

    async def test_a_user_that_is_not_there(self, users: Users) -> None:
        with refused("USER_NOT_FOUND"):
            await update(users, User(user_id="none", display_name="x"), "display_name")


class TestAllowMissing:
    async def test_a_user_that_is_not_there_is_made_with_all_fields(self, users: Users) -> None:
        given = User(user_id="u1", email="a@b.c", display_name="a", metadata={"k": "v"})
        made = await update(users, given, "display_name", allow_missing=True)
        assert (made.email, made.display_name, dict(made.metadata)) == ("a@b.c", "a", {"k": "v"})
        assert await get(users) == await lookup(users, "a@b.c") == made
        changed = await update(users, User(user_id="u1", display_name="b"), "display_name", allow_missing=True)
        assert (changed.display_name, changed.create_time) == ("b", made.create_time)

    async def test_it_needs_what_a_create_needs(self, users: Users) -> None:
        with pytest.raises(ApiError) as refusal:
            await update(users, User(user_id="u1", display_name="a"), "display_name", allow_missing=True)
        assert refusal.value.violations[0].field == "user.email"
        await create(users, "other")
        with refused("USER_EMAIL_TAKEN"):
            await update(users, User(user_id="u1", email="other@example.com"), "email", allow_missing=True)

    async def test_there_is_no_version_of_what_is_not_there(self, users: Users) -> None:
        with refused("ETAG_MISMATCH"):
            await update(users, User(user_id="u1", email="a@b.c", etag="x"), allow_missing=True)

    async def test_of_many_at_once_one_makes_it_and_none_fails(self, users: Users) -> None:
        given = [User(user_id="u1", email="a@b.c", metadata={f"k{n}": "v"}) for n in range(8)]
        await asyncio.gather(
            *(update(users, user, f"metadata.k{n}", allow_missing=True) for n, user in enumerate(given))
        )
        assert set((await get(users)).metadata) == {f"k{n}" for n in range(8)}


class TestDelete:
    async def test_it_is_gone_at_once_with_its_sessions(self, users: Users) -> None:
        await create(users)
        await get(users)
        await lookup(users)
        await delete(users)
        assert users.sessions.revoked == [("acme", "u1")]
        with refused("USER_NOT_FOUND"):
            await get(users)
        with refused("USER_NOT_FOUND"):
            await lookup(users)
        with refused("USER_NOT_FOUND"):
            await delete(users)
        await delete(users, allow_missing=True)

    async def test_only_at_the_etag_given(self, users: Users) -> None:
        made = await create(users)
        await update(users, User(user_id="u1", display_name="a"), "display_name")
        with refused("ETAG_MISMATCH"):
            await delete(users, etag=made.etag)
        assert users.sessions.revoked == []
        await delete(users, etag=(await get(users)).etag)

    async def test_of_many_at_once_one_removes_it(self, users: Users) -> None:
        await create(users)
        answers = await asyncio.gather(*(delete(users) for _ in range(8)), return_exceptions=True)
        assert answers.count(None) == 1
        assert {failure.reason for failure in answers if isinstance(failure, ApiError)} == {"USER_NOT_FOUND"}

    async def test_an_etag_does_not_outlive_its_user(self, users: Users) -> None:
        made = await create(users)
        await delete(users)
        await create(users)
        with refused("ETAG_MISMATCH"):
            await update(users, User(user_id="u1", display_name="a", etag=made.etag), "display_name")

    async def test_sessions_that_could_not_be_revoked_are_by_a_repetition(self, users: Users) -> None:
        made = await create(users)
        users.sessions.failure = unavailable("SESSIONS_NOT_REVOKED", "not now")
        with refused("SESSIONS_NOT_REVOKED"):
            await delete(users, etag=made.etag)
        with refused("USER_NOT_FOUND"):
            await get(users)
        with refused("SESSIONS_NOT_REVOKED"):
            await delete(users, allow_missing=True)
        users.sessions.failure = None
        await delete(users, etag=made.etag, allow_missing=True)
        assert users.sessions.revoked == [("acme", "u1")]


async def abandoned(call: Coroutine[Any, Any, object], store: CountingStore) -> None:
    """The call, whose client leaves when the commit has begun and before it has landed."""
    store.begun.clear()
    store.disk.clear()
    running = asyncio.create_task(call)
    await store.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


class TestAbandoned:
    async def test_a_change_that_lands_is_seen(self, users: Users, store: CountingStore) -> None:
        await create(users, email="old@b.c")
        await abandoned(update(users, User(user_id="u1", email="new@b.c"), "email"), store)
        assert await get(users) == await lookup(users, "old@b.c")  # and is cached
        with refused("USER_NOT_FOUND"):
            await lookup(users, "new@b.c")
        store.disk.set()

        async def seen() -> bool:
            return (await get(users)).email == "new@b.c"

        await eventually(seen, "the change is seen")
        assert await lookup(users, "new@b.c") == await get(users)

    async def test_a_delete_that_lands_revokes_the_sessions(self, users: Users, store: CountingStore) -> None:
        await create(users)
        await abandoned(delete(users), store)
        await get(users)
        store.disk.set()
        await eventually(lambda: users.sessions.revoked == [("acme", "u1")], "the sessions are revoked")
        with refused("USER_NOT_FOUND"):
            await get(users)


class Forgetful(Landings):
    """The seeded bug: work is the caller's own, and ends with it."""

    async def land(self, work: Coroutine[Any, Any, T]) -> T:
        return await work


@pytest.mark.parametrize("kind", [Landings, Forgetful])
async def test_who_leaves_in_the_middle_of_a_delete_leaves_no_session_behind(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, kind: type[Landings]
) -> None:
    monkeypatch.setattr(module, "Landings", kind)
    async with replica(store, valkey, SystemClock()) as users:
        with users.tenant("acme"):
            await create(users)
            users.sessions.go.clear()
            leaving = asyncio.create_task(delete(users))
            await users.sessions.begun.wait()
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            users.sessions.go.set()
    # Closing the service has let what was under way come to its end.
    assert users.sessions.revoked == ([("acme", "u1")] if kind is Landings else [])


async def steps_back(store: CountingStore, valkey: Valkey) -> int:
    """Two replicas, one writing, both reading and looking up all the while: how many reads were older than a change that
    had been acknowledged before they began."""
    clock = SystemClock()
    older = 0
    async with replica(store, valkey, clock) as one, replica(store, valkey, clock) as two:
        with one.tenant("acme"):
            await create(one, display_name="0", email="n0@b.c")
            acknowledged = 0
            done = False

            async def read(users: Users) -> int:
                nonlocal older
                reads = 0
                while not done:
                    floor = acknowledged
                    older += int((await get(users)).display_name) < floor
                    reads += 1
                return reads

            async def look(users: Users) -> int:
                nonlocal older
                looks = 0
                while not done:
                    floor = acknowledged
                    try:
                        older += int((await lookup(users, f"n{floor}@b.c")).display_name) < floor
                    except ApiError:
                        # Not there: it has moved on; if it has not, what is cached is from before it came.
                        stored = await two.store.get(user_key("acme", "u1"))
                        assert stored is not None
                        older += stored.fields["email"] == f"n{floor}@b.c"
                    looks += 1
                return looks

            async def write() -> None:
                nonlocal acknowledged, done
                for number in range(1, 80):
                    changed = User(user_id="u1", display_name=str(number), email=f"n{number}@b.c")
                    await update(two, changed, "display_name", "email")
                    acknowledged = number
                done = True

            *reads, _ = await asyncio.gather(read(one), read(two), look(one), look(two), write())
    assert sum(reads) > 80
    return older


async def test_no_read_is_older_than_the_last_acknowledged_change(store: CountingStore, valkey: Valkey) -> None:
    assert await steps_back(store, valkey) == 0


async def test_it_would_be_without_the_invalidations(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded bug: the check above must be able to fail."""

    async def forgotten(*_: str) -> bool:
        return True

    monkeypatch.setattr(LeaseReadThrough, "invalidate", forgotten)
    assert await steps_back(store, valkey) > 0


async def test_reads_are_answered_from_the_cache(users: Users, store: CountingStore) -> None:
    await create(users)
    await lookup(users)
    reads = store.reads
    for _ in range(3):
        await get(users)
        await lookup(users)
    assert store.reads == reads
    assert users.sample("bas_cache_reads_total", cache="user", outcome="hit") == 6
    assert users.sample("bas_cache_reads_total", cache="user:email", outcome="hit") == 3


async def test_no_entry_gets_older_than_a_minute(users: Users, valkey: Valkey) -> None:
    for n in range(30):
        await create(users, f"u{n}")
        await get(users, f"u{n}")
    lease = float(CacheTtl().lease_ttl)
    lives = [valkey.command("PTTL", f"user:{{acme/u{n}}}") / 1000 for n in range(30)]
    assert 40 < min(lives) < max(lives) <= 60 - lease


async def test_without_the_cache_everything_works(store: CountingStore, own_valkey: Valkey) -> None:
    async with replica(store, own_valkey, SystemClock()) as users:
        with users.tenant("acme"):
            await create(users)
            await get(users)
            await lookup(users)
            await own_valkey.kill()
            made = await create(users, "u2")
            assert await get(users, "u2") == await lookup(users, "u2@example.com") == made
            await update(users, User(user_id="u1", email="new@b.c"), "email")
            assert (await get(users)).email == (await lookup(users, "new@b.c")).email == "new@b.c"
            with refused("USER_NOT_FOUND"):
                await lookup(users)
            assert len((await batch(users, "u1", "u2")).users) == 2
            await delete(users)
            with refused("USER_NOT_FOUND"):
                await get(users)


async def test_a_stalled_cache_delays_a_read_and_does_not_fail_it(store: CountingStore, own_valkey: Valkey) -> None:
    async with replica(store, own_valkey, SystemClock(), op_timeout=0.5) as users:
        with users.tenant("acme"):
            made = await create(users)
            own_valkey.pause()
            try:
                assert await get(users) == await lookup(users) == made
                assert list((await batch(users, "u1")).users) == [made]
            finally:
                own_valkey.resume()


async def test_cached_reads_go_on_without_the_store(users: Users, store: CountingStore) -> None:
    made = await create(users)
    await lookup(users)
    store.failure = StoreUnavailable()
    assert await get(users) == await lookup(users) == made
    with refused("STORE_UNAVAILABLE"):
        await update(users, User(user_id="u1", display_name="a"), "display_name")
    with refused("STORE_UNAVAILABLE"):
        await create(users, "u2")
    with refused("STORE_UNAVAILABLE"):
        await delete(users)
    assert users.sessions.revoked == []
