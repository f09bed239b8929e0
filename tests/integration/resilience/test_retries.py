"""Attempts counted where they arrive: at a server that fails, behind one tier and behind two."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from chassis.auth import keys
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Auth, Grpc, Retry, Seconds
from chassis.errors import ApiError, Code, unavailable
from chassis.interceptors.client import UnaryCall
from chassis.policies import Policy
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import make_server
from tests.integration.resilience.rig import EAGER, PATH, SAFE, Backend, calling, hang, refuse, serving, well
from tests.support import echo

AWAY = refuse(grpc.StatusCode.UNAVAILABLE)


async def failed(call: UnaryCall, request: bytes = b"", timeout: float = 60.0) -> ApiError:  # noqa: ASYNC109
    with pytest.raises(ApiError) as failure:
        await call(request, timeout=timeout)
    return failure.value


async def load(calls: int, retry: Retry) -> tuple[int, float]:
    """Attempts that reach a server that is away, of so many calls, and the seconds that it took."""
    clock = SystemClock()
    async with serving(AWAY) as backend, calling(backend.port, retry) as client:
        call, begun = client.unary(PATH, SAFE), clock.monotonic()
        for _ in range(calls):
            await failed(call)
        return backend.total, clock.monotonic() - begun


def within_budget(calls: int, attempts: int, seconds: float) -> bool:
    floors = 3 * (seconds // 9 + 1)
    return calls < attempts <= 1.2 * calls + floors


async def test_in_an_outage_the_load_grows_by_no_more_than_the_budget() -> None:
    attempts, seconds = await load(400, Retry(backoff=Seconds(0.001)))
    assert within_budget(400, attempts, seconds)


async def test_seeded_bug_no_budget() -> None:
    attempts, seconds = await load(100, EAGER)
    assert not within_budget(100, attempts, seconds)
    assert attempts == 300


async def test_a_call_is_three_attempts_at_most_and_the_repeated_ones_say_so() -> None:
    metrics = Metrics()
    async with serving(AWAY) as backend, calling(backend.port, metrics=metrics) as client:
        error = await failed(client.unary(PATH, SAFE))
    assert (error.code, backend.total, backend.marks) == (Code.UNAVAILABLE, 3, [None, "1", "2"])
    assert metrics.registry.get_sample_value("bas_client_retries_total", {"outcome": "made"}) == 2
    counted = metrics.registry.get_sample_value(
        "grpc_client_handled_total",
        {
            "grpc_type": "unary",
            "grpc_service": "bas.resiliencetest.v2.Backend",
            "grpc_method": "Ask",
            "grpc_code": "UNAVAILABLE",
        },
    )
    assert counted == 1, "one call, however many attempts"


async def test_a_failure_that_passes_is_not_seen() -> None:
    async with serving(AWAY) as backend, calling(backend.port) as client:

        async def once(rpc: Any) -> bytes:
            backend.act = well
            return await AWAY(rpc)

        backend.act = once
        assert await client.unary(PATH, SAFE)(b"") == b"well"
        assert backend.total == 2


@pytest.mark.parametrize(
    ("act", "policy"),
    [
        (AWAY, Policy(scope="", default_deadline=60.0)),
        (refuse(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),)), SAFE),
        (refuse(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "soon"),)), SAFE),
        (refuse(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "3600000"),)), SAFE),
        (refuse(grpc.StatusCode.RESOURCE_EXHAUSTED), SAFE),
        (refuse(grpc.StatusCode.INTERNAL), SAFE),
        (refuse(grpc.StatusCode.ABORTED), SAFE),
    ],
)
async def test_one_attempt_where_another_is_not_wanted(act: Any, policy: Policy) -> None:
    async with serving(act) as backend, calling(backend.port) as client:
        await failed(client.unary(PATH, policy))
        assert backend.total == 1


async def test_exhaustion_with_a_pushback_is_repeated() -> None:
    act = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", "1"),))
    async with serving(act) as backend, calling(backend.port) as client:
        await failed(client.unary(PATH, SAFE))
        assert backend.total == 3


async def test_a_deadline_that_passes_is_not_repeated() -> None:
    async with serving(hang) as backend, calling(backend.port) as client:
        error = await failed(client.unary(PATH, SAFE), timeout=0.2)
        assert error.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
        assert backend.total <= 1


Inner = Callable[[Client], UnaryCall]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> KeySet:
    folder: Path = tmp_path_factory.mktemp("keys")
    return keys.load_or_create(folder / "keys.json", os.urandom)


@asynccontextmanager
async def two_tiers(
    held: KeySet, backend: Backend, inner_retry: Retry = EAGER
) -> AsyncIterator[tuple[Callable[[], Any], echo.Echo]]:
    """A caller → the echo service → `backend`, both calls through the client chain."""
    middle = echo.Echo()
    server = make_server(middle, held, Metrics(), config=Grpc(drain=Seconds(2)))
    await server.start()
    token = mint(held, Auth(), Grant("t1", "me", ("devices:write",)), SystemClock().now())
    try:
        async with calling(backend.port, inner_retry) as inner, calling(server.port) as outer:
            ask = inner.unary(PATH, SAFE)

            async def act(text: str) -> str:
                return (await ask(text.encode(), timeout=60.0)).decode()

            middle.act = act
            call = outer.unary(f"/{echo.NAME}/Unary", SAFE)
            yield (
                lambda: call(echo.Word(text="x").SerializeToString(), 60.0, (("authorization", f"Bearer {token}"),)),
                middle,
            )
    finally:
        await server.stop()


async def test_two_tiers_make_three_attempts_and_not_nine(held: KeySet) -> None:
    async with serving(AWAY) as backend, two_tiers(held, backend) as (call, middle):
        with pytest.raises(ApiError) as failure:
            await call()
        assert failure.value.code is Code.UNAVAILABLE
        assert (backend.total, len(middle.calls)) == (3, 1)


async def test_seeded_bug_a_tier_that_does_not_say_that_it_has_retried(
    held: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApiError, "pushback", property(lambda _: 0.0, lambda _error, _seconds: None))
    async with serving(AWAY) as backend, two_tiers(held, backend) as (call, middle):
        with pytest.raises(ApiError):
            await call()
        assert len(middle.calls) == 3
        assert backend.total == 3 + 1 + 1, "the mark alone still keeps the lower tier from repeating"


async def test_what_is_repeated_is_not_repeated_below(held: KeySet) -> None:
    async with serving(AWAY) as backend, two_tiers(held, backend) as (call, middle):
        asked = middle.act

        async def shed_first(text: str) -> str:
            if len(middle.calls) == 1:
                raise unavailable("OVERLOADED", "Come back at once.", retry_after=0.0)
            return await asked(text)

        middle.act = shed_first
        with pytest.raises(ApiError):
            await call()
        assert [seen is not None and seen.repeated for seen in middle.calls] == [False, True, True]
        assert backend.total == 2
        assert backend.marks == [None, None]


async def test_seeded_bug_a_tier_that_reads_no_mark(held: KeySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.interceptors.admission.ATTEMPT_KEY", "nobody-sends-this")
    async with serving(AWAY) as backend, two_tiers(held, backend) as (call, middle):
        asked = middle.act

        async def shed_first(text: str) -> str:
            if len(middle.calls) == 1:
                raise unavailable("OVERLOADED", "Come back at once.", retry_after=0.0)
            return await asked(text)

        middle.act = shed_first
        with pytest.raises(ApiError):
            await call()
        assert backend.total > 2
