"""Deadlines from whoever sends what: nothing works on for a caller that has gone, and nobody gets more than the RPC allows."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.auth import keys
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Auth, Grpc, Seconds
from chassis.errors import ApiError, Code
from chassis.http2.grpc import Failure, Head
from chassis.http2.hpack import literal
from chassis.resilience.deadline import within
from chassis.store.port import StoreTimeout
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import make_server
from tests.integration.resilience.rig import SAFE, calling
from tests.support import echo

LONGEST = 60.0
"""What the echo service's RPCs allow."""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> KeySet:
    return keys.load_or_create(tmp_path_factory.mktemp("keys") / "keys.json", os.urandom)


class Tier:
    """An echo service, a client of it, and a caller token."""

    def __init__(self, servicer: echo.Echo, client: Client, held: KeySet) -> None:
        self.echo = servicer
        self.client = client
        token = mint(held, Auth(), Grant("t1", "me", ("devices:write",)), SystemClock().now())
        self.metadata = (("authorization", f"Bearer {token}"),)
        self._unary = client.unary(f"/{echo.NAME}/Unary", SAFE)

    async def call(self, seconds: float) -> bytes:
        return await self._unary(echo.Word(text="x").SerializeToString(), seconds, self.metadata)


@asynccontextmanager
async def tier(held: KeySet) -> AsyncIterator[Tier]:
    servicer = echo.Echo()
    server = make_server(servicer, held, Metrics(), config=Grpc(drain=Seconds(2)))
    await server.start()
    try:
        async with calling(server.port) as client:
            yield Tier(servicer, client, held)
    finally:
        await server.stop()


async def forever(_text: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("sent", [b"0m", b"0n", b"-5m", b"99999999H", b"31536000S", b"abc", b"", b"1Y", b"m", b"1.5S"])
async def test_a_hostile_deadline_gets_no_more_than_the_rpc_allows(held: KeySet, sent: bytes) -> None:
    async with tier(held) as it:
        channel = it.client._channel
        head = Head(f"/{echo.NAME}/Unary", "x")
        block = head._fixed + literal(b"grpc-timeout", sent) + literal(b"authorization", it.metadata[0][1].encode())
        connection, clock = channel._pick(), SystemClock()
        assert connection is not None
        before = clock.monotonic()
        stream = connection.begin(block, echo.Word(text="x").SerializeToString(), before + 30)
        try:
            answer = await stream.answer
            assert echo.Word.FromString(answer).text == "x"
        except Failure as refused:
            assert refused.status in (Code.DEADLINE_EXCEEDED.grpc_number, Code.INTERNAL.grpc_number, 1)  # noqa: PT017
        for seen in it.echo.calls:
            assert seen is not None
            assert seen.deadline is not None
            assert seen.deadline <= clock.monotonic() + LONGEST
        assert connection.usable, "others' calls go on"
        assert echo.Word.FromString(await it.call(60)).text == "x"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("-inf")])
async def test_a_call_without_time_is_not_sent(held: KeySet, seconds: float) -> None:
    async with tier(held) as it:
        with pytest.raises(ApiError) as late:
            await it.call(seconds)
        assert late.value.code is Code.DEADLINE_EXCEEDED
        assert it.echo.calls == []


async def test_a_deadline_of_a_year_is_the_rpcs_longest(held: KeySet) -> None:
    async with tier(held) as it:
        before = SystemClock().monotonic()
        await it.call(366 * 86400.0)
        (seen,) = it.echo.calls
        assert seen is not None
        assert seen.deadline is not None
        assert seen.deadline - before < LONGEST + 30


async def test_a_caller_that_leaves_ends_the_work_of_all_tiers(held: KeySet) -> None:
    async with tier(held) as outer, tier(held) as inner:
        inner.echo.act = forever

        async def on(_text: str) -> str:
            await inner.call(60)
            return ""

        outer.echo.act = on
        task = asyncio.create_task(outer.call(60))
        async with asyncio.timeout(30):
            await inner.echo.entered.wait()
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(30):
            await inner.echo.cancelled.wait()
            await outer.echo.cancelled.wait()


async def test_what_is_left_shrinks_from_tier_to_tier(held: KeySet) -> None:
    async with tier(held) as outer, tier(held) as inner:

        async def on(_text: str) -> str:
            await inner.call(60)
            return ""

        outer.echo.act = on
        await outer.call(50)
        (first,), (second,) = outer.echo.calls, inner.echo.calls
        assert first is not None
        assert second is not None
        assert first.deadline is not None
        assert second.deadline is not None
        # The margin of each: 5 % of what it got.
        assert second.deadline < first.deadline


async def test_a_store_that_answers_after_the_deadline_is_not_waited_for_and_does_no_harm(held: KeySet) -> None:
    async with tier(held) as it:
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[str]] = []

        async def stored(_text: str) -> str:
            answers.append(loop.create_future())
            async with within(SystemClock(), 60, StoreTimeout):
                return await asyncio.shield(answers[-1])

        it.echo.act = stored
        async with asyncio.timeout(60):
            while not answers:  # a busy machine may need longer for the way there
                with pytest.raises(ApiError) as late:
                    await it.call(0.25)
                assert late.value.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
        for answer in answers:
            answer.set_result("late")
        it.echo.act = it.echo._same
        assert echo.Word.FromString(await it.call(60)).text == "x"
