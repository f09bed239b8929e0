"""Who is counted as refused, through a real server."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest

from chassis.auth import keys, tokens
from chassis.auth.keys import KeySet
from chassis.auth.refusals import Refusals
from chassis.auth.tokens import Grant
from chassis.clock import SystemClock
from chassis.config import Auth, Grpc
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running, make_server, refused
from tests.support import echo

PATH = f"/{echo.NAME}/Unary"
HOUR = timedelta(hours=1)


@dataclass
class Counting:
    running: Running
    refusals: Refusals

    async def call(self, authorization: str) -> str:
        """The reason of the answer."""
        return (await refused(self.running.unary()("x", metadata=(("authorization", authorization),)))).reason

    def token(self, ago: timedelta, *, audience: str = "bas", held: KeySet | None = None) -> str:
        """Of a minute, from so long ago."""
        grant = Grant("t1", "me", ("devices:write",), ttl=60, session_id="s1")
        now = SystemClock().now() - ago
        return f"Bearer {tokens.mint(held or self.running.keys, Auth(audience=audience), grant, now)}"

    def told(self) -> list[tuple[str, str, str, str, str, int]]:
        return [(*refusal, tally.count) for refusal, tally in self.refusals.take().items()]


@pytest.fixture
async def counting(held: KeySet, grpc_config: Grpc) -> AsyncIterator[Counting]:
    servicer, metrics = echo.Echo(), Metrics()
    refusals = Refusals(SystemClock(), metrics)
    server = make_server(servicer, held, metrics, config=grpc_config, refusals=refusals)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Counting(Running(server, channel, servicer, metrics, held), refusals)
    await server.stop()


async def test_a_scope_that_is_lacking_in_every_shape(counting: Counting) -> None:
    running, weak = counting.running, counting.running.bearer("devices:read")
    for _ in range(2):
        assert (await refused(running.unary()("x", metadata=weak))).reason == "SCOPE_MISSING"
    assert (await refused(running.server_stream()("x", metadata=weak))).reason == "SCOPE_MISSING"
    assert counting.told() == [
        ("t1", "me", "", "SCOPE_MISSING", PATH, 2),
        ("t1", "me", "", "SCOPE_MISSING", f"/{echo.NAME}/ServerStream", 1),
    ]


async def test_a_genuine_token_at_the_wrong_time(counting: Counting) -> None:
    assert await counting.call(counting.token(HOUR)) == "TOKEN_EXPIRED"
    assert await counting.call(counting.token(-HOUR)) == "TOKEN_INVALID"
    assert counting.told() == [
        ("t1", "me", "s1", "TOKEN_EXPIRED", PATH, 1),
        ("t1", "me", "s1", "TOKEN_NOT_YET_VALID", PATH, 1),
    ]


async def test_what_proves_nothing_and_what_succeeds_are_not_told(
    counting: Counting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    forged = keys.load_or_create(tmp_path_factory.mktemp("other") / "keys.json", os.urandom)
    for bad in (
        counting.token(HOUR, held=forged),
        counting.token(HOUR, audience="elsewhere"),
        counting.token(HOUR)[:-9],
        "Bearer no.such.thing",
    ):
        assert await counting.call(bad) == "TOKEN_INVALID"
    assert (await counting.running.unary()("x", metadata=counting.running.bearer())).text == "x"
    assert counting.told() == []
    assert counting.running.metrics.registry.get_sample_value("bas_refusals_total", {"reason": "TOKEN_INVALID"}) == 4
