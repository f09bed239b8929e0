"""Removing a user, with the real sessions service behind the real chain."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionRequest, CreateSessionRequest
from bas.sessions.v2.sessions_service_pb2_grpc import SessionServiceStub
from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import CreateUserRequest, DeleteUserRequest
from bas.users.v2.users_service_pb2_grpc import UserServiceStub
from chassis.auth.keys import KeySet
from chassis.cache.client import open_cache
from chassis.clock import FakeClock, SystemClock
from chassis.config import Config, Outbox
from chassis.errors import unavailable
from chassis.interceptors.client import Metadata, UnaryCall
from chassis.module import Parts, Peer, ServiceModule, ServiceSpec
from chassis.outbox.committed import CommittedOutbox
from chassis.outbox.records import with_outbox
from chassis.outbox.relay import Relay
from chassis.server import GrpcServer
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.sessions import module as sessions
from services.users import module as users
from tests.integration.users.conftest import secret
from tests.integration.users.wire import bearer, peers_to, serve
from tests.support import patience
from tests.support.valkey import Valkey


class Way:
    """To the sessions service, and how it may be cut: the Peer port in front of the real one."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.as_tenant = peer.as_tenant
        self.cut = False

    def unary(self, method: MethodDescriptor) -> UnaryCall:
        call = self._peer.unary(method)

        async def called(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - as the port has it
            if self.cut:
                raise unavailable("CUT", "The way to the service is cut.")
            return await call(request, timeout, metadata)

        return called


@dataclass(frozen=True, slots=True)
class Both:
    """Stubs of the two services."""

    users: Any
    sessions: Any
    held: KeySet
    way: "Way"
    relay: Relay
    clock: FakeClock

    async def signed_in(self, tenant: str) -> str:
        """A session token of that tenant's u1."""
        request = CreateSessionRequest(session=Session(user_id="u1"))
        made = await self.sessions.CreateSession(
            request, metadata=bearer(self.held, tenant, "sessions:write"), timeout=patience.CALL
        )
        return str(made.token)

    async def is_live(self, token: str) -> bool:
        try:
            await self.sessions.AuthenticateSession(AuthenticateSessionRequest(token=token), timeout=patience.CALL)
        except grpc.aio.AioRpcError as refused:
            if refused.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return False
        return True


@pytest.fixture
async def both(valkey: Valkey, held: KeySet, tmp_path: Path) -> AsyncIterator[Both]:
    clock, relays = SystemClock(), FakeClock()
    async with AsyncExitStack() as running:

        async def file(spec: ServiceSpec) -> SqliteStore:
            schema = with_outbox(spec.schema)
            opened = await SqliteStore.open(tmp_path / f"{spec.name}.db", schema, clock=clock, budget=patience.STORE)
            running.push_async_callback(opened.close)
            return opened

        async def served(spec: ServiceSpec, parts: Parts) -> tuple[ServiceModule, GrpcServer]:
            module = spec.build(Config(), parts)
            assert module.close is not None
            running.push_async_callback(module.close)
            return module, await serve(running, module, held, Metrics())

        cache = open_cache(patience.cache_at(valkey.url), Metrics(), clock=clock)
        running.push_async_callback(cache.close)
        others = await file(sessions.SPEC)
        _, behind = await served(sessions.SPEC, Parts(clock, others, cache, Metrics(), os.urandom, secret))
        way = Way(peers_to(running, behind, held, Metrics())("sessions"))
        store, outbox = await file(users.SPEC), CommittedOutbox(relays, "users")
        parts = Parts(clock, store, cache, Metrics(), os.urandom, secret, lambda _: way, outbox)
        module, server = await served(users.SPEC, parts)
        relay = Relay(store, module.deliver, relays, Outbox(), Metrics(), by="users", random=lambda: 0.5)
        outbox.open(module.deliver, relay.wake)
        channels = [
            await running.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{each.port}"))
            for each in (server, behind)
        ]
        yield Both(UserServiceStub(channels[0]), SessionServiceStub(channels[1]), held, way, relay, relays)


async def test_who_is_removed_is_signed_out_everywhere_and_nobody_else_is(both: Both) -> None:
    acme = bearer(both.held, "acme")
    await both.users.CreateUser(
        CreateUserRequest(user=User(user_id="u1", email="ada@example.com")), metadata=acme, timeout=patience.CALL
    )
    mine = [await both.signed_in("acme") for _ in range(3)]
    theirs = await both.signed_in("other")
    assert all([await both.is_live(token) for token in (*mine, theirs)])
    await both.users.DeleteUser(DeleteUserRequest(user_id="u1"), metadata=acme, timeout=patience.CALL)
    assert not any([await both.is_live(token) for token in mine])
    assert await both.is_live(theirs)


async def test_who_is_removed_while_the_sessions_service_is_away_is_signed_out_once_it_is_back(both: Both) -> None:
    acme = bearer(both.held, "acme")
    await both.users.CreateUser(
        CreateUserRequest(user=User(user_id="u1", email="ada@example.com")), metadata=acme, timeout=patience.CALL
    )
    mine, theirs = await both.signed_in("acme"), await both.signed_in("other")
    both.way.cut = True
    await both.users.DeleteUser(DeleteUserRequest(user_id="u1"), metadata=acme, timeout=patience.CALL)
    await both.relay.walk()
    assert await both.is_live(mine)
    both.way.cut = False
    await both.clock.advance(60)
    await both.relay.walk()
    assert not await both.is_live(mine)
    assert await both.is_live(theirs)
    again = await both.signed_in("acme")
    await both.clock.advance(60)
    await both.relay.walk()
    assert await both.is_live(again)  # what was owed is paid
