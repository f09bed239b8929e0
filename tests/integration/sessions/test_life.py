"""A session's life over one replica: made, used, changed, listed, ended; and what is not shown of it."""

import pytest

from bas.sessions.v2.sessions_pb2 import (
    SESSION_STATUS_ACTIVE,
    SESSION_STATUS_REVOKED,
    Session,
)
from chassis.errors import ApiError
from tests.integration.sessions.calls import (
    authenticate,
    create,
    get,
    is_live,
    listed,
    refused,
    revoke,
    revoke_all,
    update,
)
from tests.integration.sessions.conftest import Sessions, WatchedStore, acting


async def test_made_used_and_revoked(sessions: Sessions, store: WatchedStore) -> None:
    made = await create(sessions, scopes=["devices:read"], metadata={"app": "web"}, device_id="d1")
    session = made.session
    assert made.token.startswith(f"bas_{session.session_id}_")
    assert (session.status, session.user_id, session.device_id) == (SESSION_STATUS_ACTIVE, "ada", "d1")
    assert (session.idle_ttl.seconds, session.absolute_ttl.seconds) == (1800, 86400)
    answer = await authenticate(sessions, made.token)
    assert (answer.session, answer.tenant) == (session, "acme")
    assert await get(sessions, session.session_id) == session
    await revoke(sessions, session.session_id, "lost phone")
    assert not await is_live(sessions, made.token)
    gone = await get(sessions, session.session_id)
    assert (gone.status, gone.revoke_reason) == (SESSION_STATUS_REVOKED, "lost phone")
    assert gone.HasField("revoke_time")
    commits = store.commits
    await revoke(sessions, session.session_id, "again")
    assert await get(sessions, session.session_id) == gone
    assert store.commits == commits
    with refused("SESSION_NOT_FOUND"):
        await revoke(sessions, "nobody")


async def test_a_busy_session_costs_no_writes(sessions: Sessions, store: WatchedStore) -> None:
    made = await create(sessions)
    await authenticate(sessions, made.token)
    commits, reads, hits = store.commits, store.reads, sessions.hits
    for _ in range(1000):
        await authenticate(sessions, made.token)
    await sessions.touched()
    assert (store.commits - commits, store.reads - reads, sessions.hits - hits) == (0, 0, 1000)


async def test_a_repeated_create_gets_the_first_answer_token_included(sessions: Sessions) -> None:
    first = await create(sessions, request_id="r1", scopes=["devices:read"])
    assert await create(sessions, request_id="r1", scopes=["devices:read"]) == first
    assert await get(sessions, first.session.session_id) == first.session
    assert len((await listed(sessions)).sessions) == 1
    with refused("REQUEST_ID_REUSED"):
        await create(sessions, "bob", request_id="r1")
    with acting("acme", "sessions:write"), refused("SCOPE_MISSING"):
        await create(sessions, request_id="r1", scopes=["devices:read"])


async def test_what_a_create_refuses(sessions: Sessions) -> None:
    with refused("INVALID_ARGUMENT"):
        await create(sessions, session_id="mine")
    with refused("INVALID_ARGUMENT"):
        await create(sessions, idle=34560001)
    with refused("INVALID_ARGUMENT"):
        await create(sessions, absolute=-1)
    with acting("acme", "sessions:write", "devices:read"), refused("SCOPE_MISSING"):
        await create(sessions, scopes=["devices:write"])


async def test_metadata_is_all_that_an_update_changes(sessions: Sessions) -> None:
    made = (await create(sessions, metadata={"a": "1", "b": "2"})).session
    patch = Session(session_id=made.session_id, metadata={"a": "9"}, etag=made.etag)
    changed = await update(sessions, patch, "metadata.a")
    assert dict(changed.metadata) == {"a": "9", "b": "2"}
    assert changed.etag != made.etag
    assert await get(sessions, made.session_id) == changed
    with refused("ETAG_MISMATCH"):
        await update(sessions, patch)
    with refused("INVALID_ARGUMENT"):
        await update(sessions, Session(session_id=made.session_id, scopes=["users:admin"]))
    with refused("INVALID_ARGUMENT"):
        await update(sessions, Session(session_id=made.session_id), "status")
    many = Session(session_id=made.session_id, metadata={f"k{n}": "" for n in range(63)})
    with refused("INVALID_ARGUMENT"):
        await update(sessions, many, *(f"metadata.k{n}" for n in range(63)))


async def test_another_tenant_meets_what_does_not_exist(sessions: Sessions) -> None:
    made = await create(sessions)
    session_id = made.session.session_id
    await authenticate(sessions, made.token)
    with acting("other"):
        for call in (get(sessions, session_id), revoke(sessions, session_id), update(sessions, made.session)):
            with pytest.raises(ApiError) as theirs:
                await call
            assert str(theirs.value) == f"There is no session {session_id!r}."
        assert not await is_live(sessions, made.token)
        assert not (await listed(sessions)).sessions
        assert await revoke_all(sessions) == 0
    assert await is_live(sessions, made.token)
    assert await get(sessions, session_id) == made.session


async def test_nothing_that_is_shown_or_stored_has_the_token(sessions: Sessions, store: WatchedStore) -> None:
    made = await create(sessions, request_id="r1")
    await authenticate(sessions, made.token)
    secret = made.token.rpartition("_")[2].encode()
    shown = [await get(sessions, made.session.session_id), *(await listed(sessions)).sessions]
    assert all(secret not in each.SerializeToString() for each in shown)
    keys = await sessions.cache.command("KEYS", "*")
    for key in keys:
        if await sessions.cache.command("TYPE", key) in (b"string", "string"):
            assert secret not in (await sessions.cache.command("GET", key))
