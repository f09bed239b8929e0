"""The client chain against a real server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chassis import context, policies
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Deadline, Grpc
from chassis.errors import ApiError, Code, invalid_field, unavailable
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running
from tests.support import echo

UNARY, QUICK = f"/{echo.NAME}/Unary", f"/{echo.NAME}/Quick"
POLICIES = policies.of_service(echo.DESCRIPTOR)
HELLO = echo.Word(text="hello").SerializeToString()


def client_of(address: str, metrics: Metrics, deadline: Deadline | None = None) -> Client:
    return Client(
        address,
        config=Grpc(),
        deadline=deadline or Deadline(),
        metrics=metrics,
        clock=SystemClock(),
        random=lambda: 0.5,
    )


@pytest.fixture
def seen() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(running: Running, seen: Metrics) -> AsyncIterator[Client]:
    made = client_of(f"127.0.0.1:{running.server.port}", seen)
    yield made
    await made.close()


def handled(seen: Metrics, method: str, code: str) -> float | None:
    labels = {"grpc_type": "unary", "grpc_service": echo.NAME, "grpc_method": method, "grpc_code": code}
    return seen.registry.get_sample_value("grpc_client_handled_total", labels)


async def test_bytes_go_and_bytes_come(running: Running, client: Client, seen: Metrics) -> None:
    assert await client.unary(UNARY, POLICIES[UNARY])(HELLO, metadata=running.bearer()) == HELLO
    assert handled(seen, "Unary", "OK") == 1


async def test_errors_are_typed(running: Running, client: Client, seen: Metrics) -> None:
    for raised in (invalid_field("a", "is bad"), unavailable("BREAKER_OPEN", "Later.", retry_after=3)):

        async def fail(_text: str, error: ApiError = raised) -> str:
            raise error

        running.echo.act = fail
        with pytest.raises(ApiError) as got:
            await client.unary(UNARY, POLICIES[UNARY])(HELLO, metadata=running.bearer())
        assert (got.value.code, got.value.reason, got.value.violations, got.value.retry_after) == (
            raised.code, raised.reason, raised.violations, raised.retry_after,
        )  # fmt: skip
    assert handled(seen, "Unary", "UNAVAILABLE") == 1


async def test_a_service_that_is_not_there_is_unavailable_and_shows_no_address(seen: Metrics) -> None:
    client = client_of("127.0.0.1:1", seen)
    with pytest.raises(ApiError) as got:
        await client.unary(UNARY, POLICIES[UNARY])(HELLO)
    assert (got.value.code, got.value.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
    assert got.value.retry_after == 1.0
    assert "127" not in got.value.message
    await client.close()


async def test_the_deadline_is_what_is_left_of_the_call_in_progress(running: Running, client: Client) -> None:
    deadline = SystemClock().monotonic() + 30.0
    token = context.enter(context.Call("/x/Y", "r-9", deadline))
    await client.unary(UNARY, POLICIES[UNARY])(HELLO, metadata=running.bearer(), timeout=45)
    context.leave(token)
    (call,) = running.echo.calls
    assert call is not None
    assert call.deadline is not None
    assert call.deadline < deadline
    assert call.request_id == "r-9", "one name follows the call"


async def test_without_time_left_nothing_is_sent(running: Running, client: Client, seen: Metrics) -> None:
    token = context.enter(context.Call("/x/Y", "r-9", SystemClock().monotonic() - 1))
    with pytest.raises(ApiError) as late:
        await client.unary(UNARY, POLICIES[UNARY])(HELLO, metadata=running.bearer())
    context.leave(token)
    assert late.value.code is Code.DEADLINE_EXCEEDED
    assert running.echo.calls == []
    assert handled(seen, "Unary", "DEADLINE_EXCEEDED") == 1


async def test_the_rpcs_own_default_and_maximum_hold(running: Running, client: Client) -> None:
    async def hang(_text: str) -> str:
        await asyncio.Event().wait()
        return ""

    running.echo.act = hang
    for timeout, least in ((None, 0.09), (60, 0.18)):
        begun = SystemClock().monotonic()
        with pytest.raises(ApiError) as late:
            await client.unary(QUICK, POLICIES[QUICK])(HELLO, timeout, running.bearer())
        assert late.value.code is Code.DEADLINE_EXCEEDED
        assert least < SystemClock().monotonic() - begun < 30


async def test_deadlines_are_stretched(running: Running, seen: Metrics) -> None:
    client = client_of(f"127.0.0.1:{running.server.port}", seen, Deadline(stretch=1000.0))
    before = SystemClock().monotonic()
    await client.unary(UNARY, replace(POLICIES[UNARY], default_deadline=0.04))(HELLO, metadata=running.bearer())
    after = SystemClock().monotonic()
    await client.close()
    (call,) = running.echo.calls
    assert call is not None
    assert call.deadline is not None
    assert before + 37.9 < call.deadline < after + 38.1, "40 s, less 5 %"


async def test_a_cancelled_caller_cancels_the_work(running: Running, client: Client, seen: Metrics) -> None:
    async def hang(_text: str) -> str:
        await asyncio.Event().wait()
        return ""

    running.echo.act = hang
    calling = asyncio.create_task(client.unary(UNARY, POLICIES[UNARY])(HELLO, metadata=running.bearer()))
    await running.echo.entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    async with asyncio.timeout(30):
        await running.echo.cancelled.wait()
    assert handled(seen, "Unary", "CANCELLED") == 1
