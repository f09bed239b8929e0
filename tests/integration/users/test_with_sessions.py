"""Removing a user, with the real sessions service behind the real chain."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionRequest, CreateSessionRequest
from bas.sessions.v2.sessions_service_pb2_grpc import SessionServiceStub
from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import CreateUserRequest, DeleteUserRequest
from bas.users.v2.users_service_pb2_grpc import UserServiceStub
from chassis.auth.keys import KeySet
from chassis.cache.client import open_cache
from chassis.clock import SystemClock
from chassis.config import Config
from chassis.module import Parts
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from services.sessions import module as sessions
from services.users import module as users
from tests.integration.users.conftest import CountingStore, secret
from tests.integration.users.wire import bearer, peers_to, serve
from tests.support import patience
from tests.support.valkey import Valkey


@dataclass(frozen=True, slots=True)
class Both:
    """Stubs of the two services."""

    users: Any
    sessions: Any
    held: KeySet

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
async def both(store: CountingStore, valkey: Valkey, held: KeySet, tmp_path: Path) -> AsyncIterator[Both]:
    clock = SystemClock()
    async with AsyncExitStack() as running:
        others = await SqliteStore.open(
            tmp_path / "sessions.db", sessions.SPEC.schema, clock=clock, budget=patience.STORE
        )
        running.push_async_callback(others.close)
        cache = open_cache(patience.cache_at(valkey.url), Metrics(), clock=clock)
        running.push_async_callback(cache.close)
        behind = sessions.SPEC.build(Config(), Parts(clock, others, cache, Metrics(), os.urandom, secret))
        assert behind.close is not None
        running.push_async_callback(behind.close)
        sessions_server = await serve(running, behind, held, Metrics())
        peers = peers_to(running, sessions_server, held, Metrics())
        module = users.SPEC.build(Config(), Parts(clock, store, cache, Metrics(), os.urandom, secret, peers))
        assert module.close is not None
        running.push_async_callback(module.close)
        server = await serve(running, module, held, Metrics())
        channels = [
            await running.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{each.port}"))
            for each in (server, sessions_server)
        ]
        yield Both(UserServiceStub(channels[0]), SessionServiceStub(channels[1]), held)


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
