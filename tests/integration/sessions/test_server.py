"""The service behind the real server chain, as a client of the network meets it."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import (
    AuthenticateSessionRequest,
    CleanupExpiredSessionsRequest,
    CreateSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    RefreshSessionRequest,
    RevokeSessionRequest,
    RevokeUserSessionsRequest,
    UpdateSessionRequest,
)
from bas.sessions.v2.sessions_service_pb2_grpc import SessionServiceStub
from chassis.api.validation import compile_validator
from chassis.auth import keys, tokens
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Grpc
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.interceptors.status import error_of
from chassis.module import Parts
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from services.sessions.module import SPEC
from tests.integration.sessions.conftest import WatchedStore, replica, secret
from tests.support import patience
from tests.support.memory_cache import MemoryCache
from tests.support.valkey import Valkey


@dataclass(frozen=True, slots=True)
class Wire:
    """A stub, and the metadata of tenants."""

    stub: Any
    bearer: Any

    def __getattr__(self, name: str) -> Any:
        """The RPC, called as tenant `acme`."""
        method = getattr(self.stub, name)
        return lambda request, **more: method(
            request, **{"metadata": self.bearer("acme"), "timeout": patience.CALL, **more}
        )


@pytest.fixture
async def wire(store: WatchedStore, valkey: Valkey, tmp_path: Path) -> AsyncIterator[Wire]:
    clock = SystemClock()
    held = keys.load_or_create(tmp_path / "keys.json", os.urandom)

    def bearer(tenant: str, *scopes: str) -> tuple[tuple[str, str], ...]:
        grant = Grant(tenant, "me", scopes or ("sessions:admin", "devices:write"))
        return (("authorization", "Bearer " + tokens.mint(held, Auth(), grant, clock.now())),)

    gate = Gate(Verifier(held, Auth(), clock), clock, patience.DEADLINE, os.urandom)
    chain = ServerChain(gate, Metrics(), compile_validator)
    async with replica(store, valkey.url, clock) as made:
        server = GrpcServer([made.module], chain, Grpc(), host="127.0.0.1", port=0, setting="BAS_SESSIONS_PORT")
        await server.start()
        server.health.set_all(SERVING)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield Wire(SessionServiceStub(channel), bearer)
        finally:
            await server.stop()


async def refused(call: Any) -> tuple[str, str]:
    """Code and reason that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    error = error_of(failure.value)
    return error.code.name, error.reason


async def test_a_sessions_life(wire: Wire) -> None:
    request = CreateSessionRequest(session=Session(user_id="ada", scopes=["devices:read"]), request_id="r1")
    made = await wire.CreateSession(request)
    assert await wire.CreateSession(request) == made
    session = made.session
    asked = AuthenticateSessionRequest(token=made.token)
    alone = await wire.AuthenticateSession(asked, metadata=())
    assert (alone.session, alone.tenant) == (session, "acme")
    assert await wire.AuthenticateSession(asked) == alone
    refreshed = await wire.RefreshSession(RefreshSessionRequest(token=made.token), metadata=())
    assert await wire.GetSession(GetSessionRequest(session_id=session.session_id)) == refreshed.session
    patch = Session(session_id=session.session_id, metadata={"app": "web"}, etag=refreshed.session.etag)
    changed = await wire.UpdateSession(UpdateSessionRequest(session=patch))
    listed = await wire.ListSessions(ListSessionsRequest(user_id="ada"))
    assert list(listed.sessions) == [changed]
    other = await wire.CreateSession(CreateSessionRequest(session=Session(user_id="ada")))
    await wire.RevokeSession(RevokeSessionRequest(session_id=session.session_id, reason="lost"))
    assert await refused(wire.AuthenticateSession(AuthenticateSessionRequest(token=refreshed.token))) == (
        "UNAUTHENTICATED",
        "SESSION_INVALID",
    )
    revoked = await wire.RevokeUserSessions(RevokeUserSessionsRequest(user_id="ada"))
    assert revoked.revoked_count == 1
    assert await refused(wire.RefreshSession(RefreshSessionRequest(token=other.token))) == (
        "UNAUTHENTICATED",
        "SESSION_INVALID",
    )
    cleaned = await wire.CleanupExpiredSessions(CleanupExpiredSessionsRequest())
    assert (cleaned.removed_count, cleaned.more) == (0, False)


async def test_who_may_what(wire: Wire) -> None:
    made = await wire.CreateSession(CreateSessionRequest(session=Session(user_id="ada")))
    asked = AuthenticateSessionRequest(token=made.token)
    reader = wire.bearer("acme", "sessions:read")
    create = CreateSessionRequest(session=Session(user_id="ada"))
    assert await refused(wire.CreateSession(create, metadata=())) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    assert await refused(wire.CreateSession(create, metadata=reader)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    greedy = CreateSessionRequest(session=Session(user_id="ada", scopes=["devices:admin"]))
    assert await refused(wire.CreateSession(greedy)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    cleanup = CleanupExpiredSessionsRequest()
    writer = wire.bearer("acme", "sessions:write")
    assert await refused(wire.CleanupExpiredSessions(cleanup, metadata=writer)) == (
        "PERMISSION_DENIED",
        "SCOPE_MISSING",
    )
    assert (await wire.AuthenticateSession(asked, metadata=reader)).tenant == "acme"
    wrong = wire.bearer("acme", "devices:read")
    assert await refused(wire.AuthenticateSession(asked, metadata=wrong)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    get = GetSessionRequest(session_id=made.session.session_id)
    assert await refused(wire.GetSession(get, metadata=wire.bearer("other"))) == ("NOT_FOUND", "SESSION_NOT_FOUND")


async def test_what_a_token_is_refused_with_is_always_the_same(wire: Wire) -> None:
    made = await wire.CreateSession(CreateSessionRequest(session=Session(user_id="ada")))
    revoked = await wire.CreateSession(CreateSessionRequest(session=Session(user_id="ada")))
    await wire.RevokeSession(RevokeSessionRequest(session_id=revoked.session.session_id))
    brief = Session(user_id="ada")
    brief.idle_ttl.FromMilliseconds(1000)
    expired = await wire.CreateSession(CreateSessionRequest(session=brief))
    token = made.token
    bad = {
        "unknown": token.replace(made.session.session_id, "0" * 26),
        "revoked": revoked.token,
        "cut": token[:-1],
        "cut short": token[:10],
        "flipped": token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:],
        "a space": f" {token}",
        "a line": f"{token}\n",
        "nul": token[:40] + "\0" + token[41:],
        "emoji": token[:40] + "\U0001f600" + token[41:],
        "right to left": "\u202e" + token,
        "upper case": token.upper(),
        "two": token + token,
        "long": "bas_" + "a" * 4092,
        "a caller token": wire.bearer("acme")[0][1],
        "only underlines": "_" * 80,
    }
    calls = (
        (wire.AuthenticateSession, AuthenticateSessionRequest),
        (wire.RefreshSession, RefreshSessionRequest),
    )
    answers = set()
    for call, request in calls:
        for each in bad.values():
            answers.add(await _answer(call(request(token=each), metadata=())))
            answers.add(await _answer(call(request(token=each))))
        answers.add(await _answer(call(request(token=token), metadata=wire.bearer("other"))))
    while (await wire.GetSession(GetSessionRequest(session_id=expired.session.session_id))).status == 1:
        time.sleep(0.1)  # noqa: ASYNC251 - a second of real time, and nobody else to let run
    for call, request in calls:
        answers.add(await _answer(call(request(token=expired.token), metadata=())))
    assert len(answers) == 1, answers
    ((code, _, details, _),) = answers
    assert (code, details) == ("UNAUTHENTICATED", "The session token is not valid.")
    await wire.AuthenticateSession(AuthenticateSessionRequest(token=token), metadata=())


async def _answer(call: Any) -> tuple[str, str, str, tuple[str, ...]]:
    """All that a caller can see of a refusal, but for the request's id."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    error = error_of(failure.value)
    trailers = sorted(key for key, _ in failure.value.trailing_metadata() or ())
    return error.code.name, error.reason, str(failure.value.details()), tuple(trailers)


def test_wiring_is_quick_and_touches_nothing(store: WatchedStore) -> None:
    times = []
    for _ in range(20):
        parts = Parts(SystemClock(), store, MemoryCache(SystemClock()), Metrics(), os.urandom, secret)
        start = time.thread_time()
        SPEC.build(Config(), parts)
        times.append(time.thread_time() - start)
    assert min(times) < 0.002
