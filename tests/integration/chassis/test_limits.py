"""Limits and shedding as callers meet them: in the chain of a server."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
from grpc_health.v1 import health_pb2

from chassis.auth.keys import KeySet
from chassis.clock import SystemClock
from chassis.config import Grpc, Limits, Seconds, Shed
from chassis.errors import Code
from chassis.health import SERVING
from chassis.interceptors.status import error_of
from chassis.resilience.lag import LoopLag
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.limits.policies import Policies, default_of
from chassis.resilience.shedding import FLOOR, Shedder, never_shed
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running, make_server, refused, words
from tests.support import echo, patience
from tests.support.buckets import Buckets
from tests.support.eventually import eventually

LIMITS = Limits(rate=0.001, burst=3)
"""Three, and no more while a test runs."""


@dataclass
class Protected(Running):
    """With a limiter, and a shedder that is told the lag by the test."""

    shedder: Shedder = field(default_factory=never_shed)


@pytest.fixture
async def protected(held: KeySet, grpc_config: Grpc) -> AsyncIterator[Protected]:
    servicer, metrics, clock = echo.Echo(), Metrics(), SystemClock()
    limiter = Limiter(LIMITS, Policies(default_of(LIMITS)), Buckets(clock), clock, metrics)
    shedder = Shedder(Shed(), 2000, metrics, lambda: 0.5)
    server = make_server(
        servicer, held, metrics, config=grpc_config, deadline=patience.DEADLINE, limiter=limiter, shedder=shedder
    )
    await server.start()
    server.health.set_all(SERVING)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Protected(server, channel, servicer, metrics, held, shedder=shedder)
    await server.stop()
    await limiter.close()


async def called(running: Running, tenant: str = "t1", subject: str = "me") -> None:
    await running.unary()("x", metadata=running.bearer(tenant=tenant, subject=subject), timeout=patience.CALL)


async def test_a_tenant_that_asks_too_much_is_refused_and_no_other(protected: Protected) -> None:
    for _ in range(3):
        await called(protected)
    error = await refused(called(protected))
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert error.retry_after is not None
    assert 500 < error.retry_after <= 1000
    assert (error.metadata["rate"], error.metadata["burst"], error.metadata["version"]) == ("0.001", "3", "v2")
    await called(protected, "t2")
    assert len(protected.echo.calls) == 4


async def test_streams_count_as_one_request(protected: Protected) -> None:
    metadata = protected.bearer()
    assert [each.text async for each in protected.server_stream()("abc", metadata=metadata)] == ["a", "b", "c"]
    assert (await protected.client_stream()(words("a", "b"), metadata=metadata)).text == "ab"
    await called(protected)
    assert (await refused(protected.server_stream()("abc", metadata=metadata))).reason == "RATE_LIMITED"
    assert (await refused(protected.client_stream()(words("a"), metadata=metadata))).reason == "RATE_LIMITED"


async def test_services_among_themselves_are_not_counted(protected: Protected) -> None:
    for _ in range(10):
        await called(protected, subject="service:users")
    for _ in range(3):
        await called(protected)
    await called(protected, subject="service:users")


async def test_who_is_not_let_in_takes_nothing(protected: Protected) -> None:
    for _ in range(10):
        error = await refused(protected.unary()("x", metadata=protected.bearer("devices:read"), timeout=patience.CALL))
        assert error.reason == "SCOPE_MISSING"
    await called(protected)


async def test_health_has_no_limit_and_is_not_shed(protected: Protected) -> None:
    protected.shedder.in_progress = 5000
    protected.shedder.sample(10.0, 100.0)
    check = protected.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    for _ in range(10):
        answer = await check(health_pb2.HealthCheckRequest(), timeout=patience.CALL)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_under_overload_calls_are_refused_with_when_to_come_back(protected: Protected) -> None:
    shedder = protected.shedder
    shedder.in_progress = FLOOR
    shedder.sample(1.0, 100.0)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await protected.unary()("x", metadata=(*protected.bearer(), ("x-request-id", "r-1")), timeout=patience.CALL)
    error = error_of(failure.value)
    assert (error.code, error.reason, error.retry_after) == (Code.UNAVAILABLE, "OVERLOADED", 0.2)
    trailers = dict(failure.value.trailing_metadata() or ())
    assert (trailers["grpc-retry-pushback-ms"], trailers["x-request-id"]) == ("200", "r-1")
    assert shedder.in_progress == FLOOR
    stream = await refused(protected.server_stream()("abc", metadata=protected.bearer()))
    assert stream.reason == "OVERLOADED"
    assert protected.echo.calls == []
    shedder.in_progress = FLOOR - 1
    await called(protected)  # one that has room
    shedder.sample(0.0, 101.0)
    shedder.sample(0.0, 103.0)
    assert [each.text async for each in protected.server_stream()("a", metadata=protected.bearer())] == ["a"]


async def test_it_is_shed_before_it_is_authenticated_or_counted(protected: Protected) -> None:
    protected.shedder.in_progress = FLOOR
    protected.shedder.sample(1.0, 100.0)
    for _ in range(10):
        assert (await refused(protected.unary()("x", timeout=patience.CALL))).reason == "OVERLOADED"
    protected.shedder.in_progress = 0
    await called(protected)


async def test_what_is_in_progress_is_counted_until_it_ends(protected: Protected) -> None:
    ended = asyncio.Event()

    async def wait(text: str) -> str:
        await ended.wait()
        return text

    protected.echo.act = wait
    calls = [asyncio.ensure_future(called(protected, f"t{number}")) for number in range(5)]
    await eventually(lambda: len(protected.echo.calls) == 5, "in progress")
    assert protected.shedder.in_progress == 5
    calls[0].cancel()
    await eventually(lambda: protected.shedder.in_progress == 4, "the one that left")
    ended.set()
    await asyncio.gather(*calls[1:])
    await eventually(lambda: protected.shedder.in_progress == 0, "none in progress")


async def test_a_blocked_loop_lowers_what_is_admitted_until_it_is_free() -> None:
    shed = Shed(lag=Seconds(0.25), after=Seconds(0.25))  # so that a busy machine is not it
    shedder = Shedder(shed, 2000, Metrics(), lambda: 0.5)
    lag = LoopLag(shedder.sample, cpu=time.monotonic)  # all the time is its own
    shedder.in_progress = 1000
    lag.start()
    try:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            pass
        await eventually(lambda: shedder.limit <= 800, "lowered")
        assert shedder.streams.most < 0
        lowered = shedder.limit
        await eventually(lambda: shedder.limit > lowered, "raised again")
        await eventually(lambda: shedder.streams.most > 0, "streams are taken again")
    finally:
        lag.stop()


async def test_a_loop_that_is_late_because_of_others_refuses_nobody() -> None:
    seen: list[float] = []
    lag = LoopLag(lambda late, _now: seen.append(late), cpu=lambda: 0.0)
    lag.start()
    try:
        time.sleep(0.3)  # noqa: ASYNC251 - the machine is elsewhere
        await eventually(lambda: len(seen) > 1, "samples")
        assert set(seen) == {0.0}
        assert lag.late_since(0.0), "a missed deadline still says nothing of who was waited for"
    finally:
        lag.stop()
