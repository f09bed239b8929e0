"""The service behind the real server chain, as a client of the network meets it, beside a real server of sessions."""

import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.field_mask_pb2 import FieldMask
from prometheus_client import generate_latest

from bas.sessions.v2 import sessions_service_pb2
from bas.sessions.v2.sessions_service_pb2 import RevokeUserSessionsRequest, RevokeUserSessionsResponse
from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import (
    BatchGetUsersRequest,
    CreateUserRequest,
    DeleteUserRequest,
    GetUserRequest,
    ListUsersRequest,
    LookupUserRequest,
    UpdateUserRequest,
)
from bas.users.v2.users_service_pb2_grpc import UserServiceStub
from chassis import context
from chassis.auth.keys import KeyFileError, KeySet
from chassis.cache.client import open_cache
from chassis.clock import SystemClock
from chassis.config import Config, Log
from chassis.errors import ApiError, Code, unimplemented
from chassis.interceptors.status import error_of
from chassis.module import Parts, ServiceModule
from chassis.peers import ServicePeers
from chassis.server import GrpcServer
from chassis.telemetry import logs
from chassis.telemetry.metrics import Metrics
from services.users.module import SPEC
from tests.integration.users.conftest import CountingStore, secret
from tests.integration.users.wire import bearer, peers_to, serve
from tests.support import patience
from tests.support.memory_cache import MemoryCache
from tests.support.valkey import Valkey

SERVICE = sessions_service_pb2.DESCRIPTOR.services_by_name["SessionService"]


@dataclass
class FakeSessions:
    """A sessions service that knows one RPC, behind the real chain: what it records, it was allowed to do."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Tenant, subject and user of each call."""
    failure: ApiError | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in SERVICE.methods_by_name:
            raise AttributeError(name)

        async def other(_: object) -> None:
            raise unimplemented(name)

        return other

    async def RevokeUserSessions(self, request: RevokeUserSessionsRequest) -> RevokeUserSessionsResponse:  # noqa: N802
        if self.failure is not None:
            raise self.failure
        caller = context.caller()
        assert caller.scopes == {"sessions:read", "sessions:write"}
        assert caller.expires_at <= time.time() + 61
        self.calls.append((caller.tenant, caller.subject, request.user_id))
        return RevokeUserSessionsResponse(revoked_count=1)


@dataclass(frozen=True)
class Wire:
    """A stub, the metadata of tenants, and what stands behind."""

    stub: Any
    bearer: Any
    sessions: FakeSessions
    sessions_server: GrpcServer
    store: CountingStore
    metrics: Metrics

    def __getattr__(self, name: str) -> Any:
        """The RPC, called as tenant `acme`."""
        method = getattr(self.stub, name)
        return lambda request, **more: method(
            request, **{"metadata": self.bearer("acme"), "timeout": patience.CALL, **more}
        )

    async def create(self, user_id: str = "u1", email: str = "", **fields: Any) -> User:
        user = User(user_id=user_id, email=email or f"{user_id}@example.com", **fields)
        made: User = await self.CreateUser(CreateUserRequest(user=user))
        return made


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """What the process logs, as it would in production. To be asked for before `wire`: a logger is made with a method."""
    lines, root = StringIO(), logging.getLogger()
    before = root.level, root.handlers[:]
    logs.configure(Log(level="debug", format="json"), "users", lines)
    try:
        yield lines
    finally:
        structlog.reset_defaults()
        root.level, root.handlers[:] = before


@pytest.fixture
async def wire(store: CountingStore, valkey: Valkey, held: KeySet) -> AsyncIterator[Wire]:
    clock, metrics, sessions = SystemClock(), Metrics(), FakeSessions()

    async with AsyncExitStack() as running:
        sessions_server = await serve(running, ServiceModule("sessions", SERVICE, sessions), held, Metrics())
        peers = peers_to(running, sessions_server, held, metrics)
        cache = open_cache(patience.cache_at(valkey.url), Metrics(), clock=clock)
        running.push_async_callback(cache.close)
        module = SPEC.build(Config(), Parts(clock, store, cache, metrics, os.urandom, secret, peers))
        assert module.close is not None
        running.push_async_callback(module.close)
        server = await serve(running, module, held, metrics)
        channel = await running.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        yield Wire(UserServiceStub(channel), partial(bearer, held), sessions, sessions_server, store, metrics)


async def failure(call: Any) -> ApiError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_of(raised.value)


async def refused(call: Any) -> tuple[str, str]:
    """Code and reason that the call ends with."""
    error = await failure(call)
    return error.code.name, error.reason


async def test_a_users_life(wire: Wire) -> None:
    made = await wire.create(email="Ada@example.com", display_name="Ada")
    assert await wire.GetUser(GetUserRequest(user_id="u1")) == made
    assert await wire.LookupUser(LookupUserRequest(email="ADA@example.com")) == made
    patch = User(user_id="u1", display_name="Ada L.", etag=made.etag)
    changed = await wire.UpdateUser(UpdateUserRequest(user=patch))
    assert (changed.display_name, changed.email) == ("Ada L.", "Ada@example.com")
    answer = await wire.BatchGetUsers(BatchGetUsersRequest(user_ids=["u1", "u2"]))
    assert (list(answer.users), list(answer.missing_ids)) == ([changed], ["u2"])
    listed = await wire.ListUsers(ListUsersRequest(filter='display_name = "Ada L."'))
    assert list(listed.users) == [changed]
    assert await refused(wire.create("u2", "ada@EXAMPLE.com")) == ("ALREADY_EXISTS", "USER_EMAIL_TAKEN")
    assert await refused(wire.create("u1", "eve@example.com")) == ("ALREADY_EXISTS", "USER_ALREADY_EXISTS")
    await wire.DeleteUser(DeleteUserRequest(user_id="u1", etag=changed.etag))
    assert wire.sessions.calls == [("acme", "service:users", "u1")]
    assert await refused(wire.GetUser(GetUserRequest(user_id="u1"))) == ("NOT_FOUND", "USER_NOT_FOUND")


@pytest.mark.parametrize(
    "user",
    [
        User(user_id="a/b", email="a@b.c"),
        User(user_id="u" * 129, email="a@b.c"),
        User(),
        User(email="ada"),
        User(email="a" * 251 + "@b.c"),
        User(email="a b@c.d"),
        User(email="a\x07@c.d"),
        User(email="\u200b@c.d"),
        User(email="a@c..d"),
        User(email="a@b.c", display_name="n" * 257),
        User(email="a@b.c", display_name="bell\x07"),
        User(email="a@b.c", display_name="e\u0301"),
        User(email="a@b.c", metadata={f"k{n}": "" for n in range(65)}),
        User(email="a@b.c", metadata={"k" * 65: ""}),
        User(email="a@b.c", metadata={"k": "\u00e9" * 513}),
    ],
)
async def test_limits(wire: Wire, user: User) -> None:
    assert (await refused(wire.CreateUser(CreateUserRequest(user=user))))[0] == "INVALID_ARGUMENT"


async def test_what_is_just_within_the_limits(wire: Wire) -> None:
    made = await wire.create(
        "u" * 128,
        "a" * 250 + "@b.c",
        display_name="\u00e9" * 256,
        metadata={f"{n:064d}": "\u00e9" * 512 for n in range(64)},
    )
    assert await wire.GetUser(GetUserRequest(user_id="u" * 128)) == made


async def test_a_batch_has_a_hundred_ids(wire: Wire) -> None:
    ids = [f"u{n}" for n in range(100)]
    answer = await wire.BatchGetUsers(BatchGetUsersRequest(user_ids=ids))
    assert list(answer.missing_ids) == ids
    for wrong in ([*ids, "u100"], [], ["a/b"]):
        assert (await refused(wire.BatchGetUsers(BatchGetUsersRequest(user_ids=wrong))))[0] == "INVALID_ARGUMENT"


async def test_an_update_needs_an_id_and_keeps_the_address(wire: Wire) -> None:
    await wire.create()
    for patch, paths in (
        (User(display_name="x"), ()),
        (User(user_id="u1"), ("email",)),
        (User(user_id="u1", display_name="x"), ("*",)),
    ):
        request = UpdateUserRequest(user=patch, update_mask=FieldMask(paths=paths))
        assert (await refused(wire.UpdateUser(request)))[0] == "INVALID_ARGUMENT"


async def test_the_scope_and_the_tenant_are_the_credentials(wire: Wire) -> None:
    request = CreateUserRequest(user=User(user_id="u1", email="u1@example.com"))
    assert await refused(wire.CreateUser(request, metadata=())) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    reader = wire.bearer("acme", "users:read")
    assert await refused(wire.CreateUser(request, metadata=reader)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    delete = DeleteUserRequest(user_id="u1", allow_missing=True)
    assert await refused(wire.DeleteUser(delete, metadata=reader)) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    await wire.CreateUser(request)
    for call in (
        wire.GetUser(GetUserRequest(user_id="u1"), metadata=reader),
        wire.LookupUser(LookupUserRequest(email="u1@example.com"), metadata=reader),
        wire.ListUsers(ListUsersRequest(), metadata=reader),
        wire.BatchGetUsers(BatchGetUsersRequest(user_ids=["u1"]), metadata=reader),
    ):
        await call


def about(user_id: str, email: str) -> Iterator[tuple[str, Any]]:
    """Each RPC that names a user, about that one."""
    yield "GetUser", GetUserRequest(user_id=user_id)
    yield "LookupUser", LookupUserRequest(email=email)
    yield "UpdateUser", UpdateUserRequest(user=User(user_id=user_id, display_name="x"))
    yield "DeleteUser", DeleteUserRequest(user_id=user_id)


async def test_another_tenants_user_is_missing_byte_for_byte(wire: Wire) -> None:
    await wire.create("theirs")
    foreign = (("x-request-id", "r1"), *wire.bearer("other"))
    for (name, theirs), (_, none) in zip(
        about("theirs", "theirs@example.com"), about("absent", "absent@example.com"), strict=True
    ):
        answers = []
        for request in (theirs, none):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await getattr(wire, name)(request, metadata=foreign)
            details = dict(raised.value.trailing_metadata() or ())
            raw = repr((raised.value.code(), raised.value.details(), sorted(details.items())))
            assert "acme" not in raw
            answers.append(raw.replace("theirs", "absent"))
        assert answers[0] == answers[1], name
    batch = BatchGetUsersRequest(user_ids=["theirs", "absent"])
    answer = await wire.BatchGetUsers(batch, metadata=foreign)
    assert (list(answer.users), list(answer.missing_ids)) == ([], ["theirs", "absent"])
    assert not (await wire.ListUsers(ListUsersRequest(), metadata=foreign)).users
    token = (await wire.ListUsers(ListUsersRequest(page_size=1))).next_page_token
    await wire.create("more")
    token = (await wire.ListUsers(ListUsersRequest(page_size=1))).next_page_token
    assert (await refused(wire.ListUsers(ListUsersRequest(page_size=1, page_token=token), metadata=foreign)))[
        0
    ] == "INVALID_ARGUMENT"
    assert wire.sessions.calls == [("other", "service:users", "theirs"), ("other", "service:users", "absent")]


class TestSessions:
    async def test_a_delete_while_the_sessions_service_is_away_is_finished_by_a_repetition(self, wire: Wire) -> None:
        await wire.create()
        wire.sessions.failure = ApiError(Code.INTERNAL, "INTERNAL", "Something failed inside.")
        error = await failure(wire.DeleteUser(DeleteUserRequest(user_id="u1")))
        assert (error.code, error.reason) == (Code.UNAVAILABLE, "SESSIONS_NOT_REVOKED")
        assert error.retry_after
        assert await refused(wire.GetUser(GetUserRequest(user_id="u1"))) == ("NOT_FOUND", "USER_NOT_FOUND")
        wire.sessions.failure = None
        await wire.DeleteUser(DeleteUserRequest(user_id="u1", allow_missing=True))
        assert wire.sessions.calls == [("acme", "service:users", "u1")]

    async def test_nobody_listens(self, wire: Wire) -> None:
        await wire.create()
        await wire.sessions_server.stop()
        assert await refused(wire.DeleteUser(DeleteUserRequest(user_id="u1"))) == (
            "UNAVAILABLE",
            "SESSIONS_NOT_REVOKED",
        )
        assert await refused(wire.DeleteUser(DeleteUserRequest(user_id="u1"))) == (
            "UNAVAILABLE",
            "SESSIONS_NOT_REVOKED",
        )

    async def test_each_tenant_has_its_own_credential(self, wire: Wire) -> None:
        for tenant in ("acme", "other", "acme"):
            delete = DeleteUserRequest(user_id="u1", allow_missing=True)
            await wire.DeleteUser(delete, metadata=wire.bearer(tenant))
        assert [tenant for tenant, _, _ in wire.sessions.calls] == ["acme", "other", "acme"]

    def test_public_keys_are_not_enough_and_it_is_said_at_the_start(self, held: KeySet) -> None:
        peers = ServicePeers(
            "users",
            str,
            keys=KeySet(held.verifying),
            config=Config(),
            metrics=Metrics(),
            clock=SystemClock(),
            random=lambda: 0.5,
        )
        with pytest.raises(KeyFileError, match="BAS_AUTH_KEYS"):
            peers("sessions")


SECRETS = ("zaphod", "beeblebrox", "heart-of-gold")


async def leaks(wire: Wire, logged: StringIO, broken: str) -> list[str]:
    """Whatever told something personal, of everything that is refused, and of a store that breaks with that message."""
    address, name = "zaphod@heart-of-gold.example", "Beeblebrox"
    await wire.create(email=address, display_name=name)
    refusals = [
        wire.create("u2", address, display_name=name),
        wire.create("u1", f"x{address}", display_name=name),
        wire.create("u2", f"\u200b@{address}"),
        wire.create("u2", address.replace("@", "\uff20") + "@b.c"),
        wire.create("u2", address, display_name=f"{name}\x07"),
        wire.LookupUser(LookupUserRequest(email=f"x{address}")),
        wire.LookupUser(LookupUserRequest(email=f"{address}@")),
        wire.ListUsers(ListUsersRequest(filter=f"display_name = {name} {address}")),
        wire.ListUsers(ListUsersRequest(filter=f"email = {address}")),
        wire.UpdateUser(UpdateUserRequest(user=User(user_id="u3", email=address, display_name=name))),
        wire.UpdateUser(UpdateUserRequest(user=User(user_id="u1", email=address, etag="x"))),
        wire.DeleteUser(DeleteUserRequest(user_id="u1", etag="x")),
    ]
    errors = [await failure(call) for call in refusals]
    wire.store.failure = RuntimeError(broken)
    errors.append(await failure(wire.create("u2", f"y{address}", display_name=name)))
    lines = logged.getvalue()
    assert "RuntimeError: broken" in lines, "the log was not looked at"
    told = [repr(error) + repr(error.violations) + repr(dict(error.metadata)) for error in errors]
    texts = (*told, lines, generate_latest(wire.metrics.registry).decode())
    return [text for text in texts if any(word in text.lower() for word in SECRETS)]


async def test_personal_data_is_in_no_log_no_metric_and_no_error(logged: StringIO, wire: Wire) -> None:
    assert await leaks(wire, logged, "broken") == []


async def test_a_line_that_tells_an_address_is_found(logged: StringIO, wire: Wire) -> None:
    """The seeded bug."""
    assert len(await leaks(wire, logged, "broken for zaphod@heart-of-gold.example")) == 1


def test_wiring_is_quick_and_touches_nothing(store: CountingStore, held: KeySet) -> None:
    times = []
    for _ in range(20):
        clock, metrics = SystemClock(), Metrics()
        peers = ServicePeers("users", str, keys=held, config=Config(), metrics=metrics, clock=clock, random=lambda: 0.5)
        parts = Parts(clock, store, MemoryCache(clock), metrics, os.urandom, secret, peers)
        start = time.thread_time()
        SPEC.build(Config(), parts)
        times.append(time.thread_time() - start)
    assert min(times) < 0.002
