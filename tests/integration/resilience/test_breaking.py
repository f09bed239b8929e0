"""The breaker in the client chain, before a real server: what opens it, and what must not."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from chassis.clock import FakeClock
from chassis.config import Breaker as Budget
from chassis.config import Retry as Settings
from chassis.errors import ApiError, Code, not_found, unavailable
from chassis.interceptors.client import UnaryCall
from chassis.interceptors.status import STATUS_CODES, trailers_of
from chassis.policies import Policy, Retry
from chassis.resilience.breaker import Breaker, BreakerOpen, Guard, Permit, State
from gateway.upstream import ServiceUpstream
from tests.integration.resilience.rig import PATH, SAFE, calling, hang, refuse, serving, well
from tests.support.eventually import eventually

ONCE = Settings(attempts=0)
AWAY = refuse(grpc.StatusCode.UNAVAILABLE)
QUICK = Policy(scope="", retry=Retry.SAFE, default_deadline=0.3, max_deadline=60.0)


def breaker() -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    return Breaker("backend", Budget(), clock), clock


def ours(error: ApiError) -> Any:
    """A status with our details: what a service of this platform answers."""

    async def act(rpc: Any) -> bytes:
        await rpc.abort(STATUS_CODES[error.code], error.message, trailers_of(error, "r1"))
        raise AssertionError

    return act


async def outcomes(call: UnaryCall, times: int, timeout: float | None = 60.0) -> list[str]:  # noqa: ASYNC109
    found = []
    for _ in range(times):
        try:
            await call(b"", timeout=timeout)
            found.append("OK")
        except ApiError as error:
            found.append(error.reason)
    return found


async def test_a_service_that_is_away_is_asked_five_times_and_then_when_it_may_be_back() -> None:
    guard, clock = breaker()
    async with serving(AWAY) as backend, calling(backend.port, guard=guard) as client:
        call = client.unary(PATH, SAFE)
        assert await outcomes(call, 20) == ["UNAVAILABLE"] + ["BREAKER_OPEN"] * 19
        assert backend.total == 5, "a call of three attempts, and one whose third is refused"
        backend.act = well
        await clock.advance(14.9)
        assert await outcomes(call, 1) == ["BREAKER_OPEN"]
        await clock.advance(0.1)
        assert await outcomes(call, 20) == ["OK"] * 20
        assert guard.state is State.CLOSED


async def test_a_service_that_serves_again_is_probed_at_once_and_one_that_only_says_so_is_not() -> None:
    guard, _ = breaker()
    async with serving(AWAY) as backend, calling(backend.port, ONCE, guard) as client:
        upstream, call = ServiceUpstream(client), client.unary(PATH, SAFE)
        assert await upstream.ready("", 60.0)
        assert await outcomes(call, 6) == ["UNAVAILABLE"] * 5 + ["BREAKER_OPEN"]
        assert await upstream.ready("", 60.0)
        assert await outcomes(call, 1) == ["BREAKER_OPEN"], "it has said that it serves all the time"
        backend.health = health_pb2.HealthCheckResponse.NOT_SERVING
        assert not await upstream.ready("", 60.0)
        backend.act, backend.health = well, health_pb2.HealthCheckResponse.SERVING
        assert await outcomes(call, 1) == ["BREAKER_OPEN"]
        assert await upstream.ready("", 60.0)
        assert await outcomes(call, 20) == ["OK"] * 20
        assert guard.state is State.CLOSED


async def test_at_most_two_probes_are_on_their_way_at_a_time() -> None:
    guard, clock = breaker()
    async with serving(AWAY) as backend, calling(backend.port, ONCE, guard) as client:
        call = client.unary(PATH, SAFE)
        await outcomes(call, 5)
        released = asyncio.Event()
        running = most = 0

        async def slow(_rpc: Any) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await released.wait()
            running -= 1
            return b""

        backend.act = slow
        await clock.advance(15)
        probes = [asyncio.create_task(outcomes(call, 1)) for _ in range(50)]
        await eventually(lambda: sum(probe.done() for probe in probes) == 48, "the others are refused")
        released.set()
        found = [(await probe)[0] for probe in probes]
        assert (found.count("OK"), found.count("BREAKER_OPEN"), most <= 2) == (2, 48, True)
        assert guard.state is State.CLOSED


@pytest.mark.parametrize(
    "act",
    [
        refuse(grpc.StatusCode.NOT_FOUND),
        ours(not_found("device", "d1")),
        refuse(grpc.StatusCode.RESOURCE_EXHAUSTED),
        ours(unavailable("STORE_UNAVAILABLE", "The store is away, the service is not.")),
        ours(unavailable("OVERLOADED", "It sheds, so it is there.", retry_after=0.001)),
        ours(ApiError(Code.DEADLINE_EXCEEDED, "STORE_TIMEOUT", "Its store was late.")),
        refuse(grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_answer_is_no_failure_of_who_gives_it(act: Any) -> None:
    guard, _ = breaker()
    async with serving(act) as backend, calling(backend.port, ONCE, guard) as client:
        assert "BREAKER_OPEN" not in await outcomes(client.unary(PATH, SAFE), 10)
        assert (guard.state, backend.total) == (State.CLOSED, 10)


class _BlamesAnyone(Guard):
    """A seeded bug: what is neither is taken for a failure."""

    def __init__(self, inner: Breaker) -> None:
        self._inner = inner

    def admit(self) -> Permit:
        settle = self._inner.admit()
        return lambda answered: settle(bool(answered))


async def test_seeded_bug_a_breaker_that_counts_not_found() -> None:
    guard, _ = breaker()
    act = refuse(grpc.StatusCode.NOT_FOUND)
    async with serving(act) as backend, calling(backend.port, ONCE, _BlamesAnyone(guard)) as client:
        assert "BREAKER_OPEN" in await outcomes(client.unary(PATH, SAFE), 10)


async def test_callers_that_leave_do_not_trip_it() -> None:
    guard, _ = breaker()
    async with serving(hang) as backend, calling(backend.port, ONCE, guard) as client:
        call = client.unary(PATH, SAFE)
        for _ in range(20):
            backend.entered.clear()
            task = asyncio.create_task(outcomes(call, 1))
            async with asyncio.timeout(30):
                await backend.entered.wait()
            task.cancel()
            await asyncio.wait([task])
        assert guard.state is State.CLOSED


async def test_a_service_that_hangs_trips_it_and_deadlines_too_short_for_it_do_not() -> None:
    guard, _ = breaker()
    async with serving(hang) as backend, calling(backend.port, ONCE, guard) as client:
        call = client.unary(PATH, QUICK)
        assert set(await outcomes(call, 10, 0.02)) == {"DEADLINE_EXCEEDED"}
        assert guard.state is State.CLOSED

        async def refused() -> bool:
            return (await outcomes(call, 1, None))[-1] == "BREAKER_OPEN"

        await eventually(refused, "the breaker opens")


async def test_a_busy_loop_of_our_own_is_not_the_services_fault() -> None:
    guard, _ = breaker()
    async with serving(hang) as backend, calling(backend.port, ONCE, guard, late=lambda _moment: True) as client:
        await outcomes(client.unary(PATH, QUICK), 6, None)
        assert guard.state is State.CLOSED


async def test_a_health_check_passes_an_open_breaker_by() -> None:
    guard, _ = breaker()
    async with serving(AWAY) as backend, calling(backend.port, ONCE, guard) as client:
        await outcomes(client.unary(PATH, SAFE), 5)
        backend.act = well
        assert await outcomes(client.unary(PATH, SAFE, guarded=False), 3) == ["OK"] * 3
        with pytest.raises(BreakerOpen):
            await client.unary(PATH, SAFE)(b"")
