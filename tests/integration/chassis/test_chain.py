"""The server chain through a real server: each layer, in each of the four call shapes."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from chassis import context
from chassis.auth import tokens
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant
from chassis.clock import FakeClock, SystemClock
from chassis.config import Deadline, Grpc
from chassis.errors import ApiError, Code, Violation, invalid_argument, not_found, unavailable
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running, make_server, refused, words
from tests.support import echo
from tests.support.eventually import eventually

SHAPES: dict[str, Callable[[Running], Any]] = {
    "unary": lambda it: it.unary(),
    "server_stream": lambda it: lambda text, **more: it.server_stream()(text[:1] if text != "bad" else text, **more),
    "client_stream": lambda it: lambda text, **more: it.client_stream()(words(text), **more),
    "bidi_stream": lambda it: lambda text, **more: it.bidi_stream()(words(text), **more),
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call_of(running: Running, shape: str) -> Any:
    return SHAPES[shape](running)


async def answers(call: Any) -> list[str]:
    if hasattr(call, "__aiter__"):
        return [answer.text async for answer in call]
    return [(await call).text]


async def test_an_answer_comes_back(running: Running, shape: str) -> None:
    assert await answers(call_of(running, shape)("x", metadata=running.bearer())) == ["x"]


async def test_streams_carry_many_messages_in_order(running: Running) -> None:
    many = [str(number) for number in range(100)]
    assert await answers(running.bidi_stream()(words(*many), metadata=running.bearer())) == many
    assert await answers(running.client_stream()(words(*many), metadata=running.bearer())) == ["".join(many)]
    assert await answers(running.server_stream()("abc", metadata=running.bearer())) == ["a", "b", "c"]


async def test_the_handler_sees_caller_request_id_method_and_deadline(running: Running, shape: str) -> None:
    before = SystemClock().monotonic()
    metadata = (*running.bearer(), ("x-request-id", "r-1"))
    await answers(call_of(running, shape)("x", metadata=metadata, timeout=60))
    after = SystemClock().monotonic()
    (call,) = running.echo.calls
    assert call is not None
    assert call.caller is not None
    assert (call.caller.tenant, call.caller.subject, call.request_id) == ("t1", "me", "r-1")
    assert call.caller.scopes == {"devices:read", "devices:write"}
    assert call.method.startswith(f"/{echo.NAME}/")
    assert call.deadline is not None
    assert before + 56.9 < call.deadline < after + 57.1, "5 % is kept back"


async def test_one_calls_context_is_not_anothers(running: Running) -> None:
    async def who(_text: str) -> str:
        await asyncio.sleep(0)
        return context.tenant()

    running.echo.act = who
    tenants = [f"t{number}" for number in range(20)]
    got = await asyncio.gather(*(running.unary()("x", metadata=running.bearer(tenant=each)) for each in tenants))
    assert [answer.text for answer in got] == tenants


# request id


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a/b"])
async def test_an_absent_or_odd_request_id_is_replaced_and_told_in_an_error(running: Running, given: str) -> None:
    named = (("x-request-id", given),) if given else ()
    await running.unary()("x", metadata=running.bearer() + named)
    assert running.echo.calls[0] is not None
    assert re.fullmatch(r"[0-9a-f]{32}", running.echo.calls[0].request_id)
    refusal = running.unary()("x", metadata=named)
    await refused(refusal)
    assert re.fullmatch(r"[0-9a-f]{32}", str(dict(await refusal.trailing_metadata())["x-request-id"]))


async def test_an_error_names_the_request(running: Running, shape: str) -> None:
    call = call_of(running, shape)("x", metadata=(("x-request-id", "r-2"),))
    got = await refused(call)
    assert got.reason == "TOKEN_MISSING", got
    trailers = dict(await call.trailing_metadata())
    assert trailers["x-request-id"] == "r-2"
    details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    info = error_details_pb2.RequestInfo()
    assert any(each.Unpack(info) for each in details)
    assert info.request_id == "r-2"


# recovery and error mapping

FAILURES: list[Exception] = [
    not_found("device", "d1"),
    invalid_argument(Violation("a", "is bad"), Violation('labels["ü"]', "too long")),
    unavailable("STORE_UNAVAILABLE", "The store cannot be reached.", retry_after=2.5),
    ApiError(Code.ABORTED, "ETAG_MISMATCH", "changed", metadata={"etag": "e1"}),
    *(ApiError(code, f"SOME_{code.name}", "with ümlaut, \n line and 100 %") for code in Code),
]


@pytest.mark.parametrize("raised", FAILURES, ids=lambda error: error.reason)
async def test_an_error_arrives_as_it_was_raised(running: Running, shape: str, raised: ApiError) -> None:
    async def fail(_text: str) -> str:
        raise raised

    running.echo.act = fail
    got = await refused(call_of(running, shape)("x", metadata=running.bearer()))
    assert (got.code, got.reason, got.message) == (raised.code, raised.reason, raised.message)
    assert got.violations == raised.violations
    assert got.metadata == raised.metadata
    assert got.retry_after == raised.retry_after


async def test_retry_after_is_a_pushback_too(running: Running) -> None:
    async def fail(_text: str) -> str:
        raise unavailable("X", "x", retry_after=0.25)

    running.echo.act = fail
    call = running.unary()("x", metadata=running.bearer())
    await refused(call)
    assert dict(await call.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


async def test_an_error_too_big_for_the_trailers_is_cut(running: Running) -> None:
    async def fail(_text: str) -> str:
        raise invalid_argument(*(Violation(f"items[{n}].name", "é" * 200) for n in range(500)))

    running.echo.act = fail
    got = await refused(running.unary()("x", metadata=running.bearer()))
    assert got.reason == "INVALID_ARGUMENT"
    assert 1 <= len(got.violations) < 500

    async def shout(_text: str) -> str:
        raise not_found("device", "é" * 100_000)

    running.echo.act = shout
    assert (await refused(running.unary()("x", metadata=running.bearer()))).reason == "DEVICE_NOT_FOUND"


@pytest.mark.parametrize(
    "raised",
    [RuntimeError("secret /path SELECT"), KeyError("secret"), AssertionError(), MemoryError(), StopAsyncIteration()],
)
async def test_an_unknown_exception_shows_nothing_of_itself(running: Running, shape: str, raised: Exception) -> None:
    async def fail(_text: str) -> str:
        raise raised

    running.echo.act = fail
    got = await refused(call_of(running, shape)("x", metadata=running.bearer()))
    assert (got.code, got.reason) == (Code.INTERNAL, "INTERNAL")
    assert "secret" not in got.message


async def test_what_is_our_fault_is_logged_once_with_its_stack_and_the_rest_is_not(
    running: Running, logged: Any
) -> None:
    async def fail(text: str) -> str:
        raise RuntimeError(text) if text == "ours" else not_found("device", "d1")

    running.echo.act = fail
    metadata = (*running.bearer(), ("x-request-id", "r-3"))
    await refused(running.unary()("theirs", metadata=metadata))
    await refused(running.unary()("ours", metadata=metadata))
    (line,) = logged
    assert (line["event"], line["request_id"], line["method"]) == ("call failed", "r-3", f"/{echo.NAME}/Unary")
    assert isinstance(line["exc_info"], RuntimeError)
    assert running.bearer()[0][1] not in str(logged)


async def test_slow_calls_are_told_once_a_second(held: KeySet, grpc_config: Grpc, logged: Any) -> None:
    servicer, metrics, clock = echo.Echo(), Metrics(), FakeClock(SystemClock().now())
    server = make_server(servicer, held, metrics, config=grpc_config, clock=clock)

    async def slow(text: str) -> str:
        await clock.advance(float(text))
        return text

    servicer.act = slow
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, channel, servicer, metrics, held)
        for seconds in ("0.09", "0.12", "0.12", "0.12", "0.75", "0.12"):
            await running.unary("Expected")(seconds, metadata=running.bearer(), timeout=30)
    await server.stop()
    assert [(line["event"], line["log_level"], line["code"]) for line in logged] == [("slow call", "info", "OK")] * 2
    assert [(line["seconds"], line["unsaid"]) for line in logged] == [(0.12, 0), (0.12, 3)]


async def test_an_unencodable_message_is_an_internal_error_not_a_hang(running: Running) -> None:
    async def fail(_text: str) -> str:
        raise ApiError(Code.NOT_FOUND, "X_NOT_FOUND", "\ud800")

    running.echo.act = fail
    assert (await refused(running.unary()("x", metadata=running.bearer(), timeout=60))).code is Code.INTERNAL


async def test_a_cancellation_that_leaks_is_a_status_at_once(running: Running, shape: str) -> None:
    async def leak(_text: str) -> str:
        raise asyncio.CancelledError

    running.echo.act = leak
    async with asyncio.timeout(30):
        got = await refused(call_of(running, shape)("x", metadata=running.bearer(), timeout=60))
    assert got.code is Code.INTERNAL


async def test_a_cancelled_inner_task_is_a_status_at_once(running: Running) -> None:
    async def leak(_text: str) -> str:
        inner = asyncio.create_task(asyncio.sleep(300))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        return ""

    running.echo.act = leak
    async with asyncio.timeout(30):
        assert (await refused(running.unary()("x", metadata=running.bearer(), timeout=60))).code is Code.INTERNAL


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_the_callers_fault(running: Running, garbage: bytes) -> None:
    for call in (
        running.unary()(garbage, metadata=running.bearer()),
        running.server_stream()(garbage, metadata=running.bearer()),
        running.bidi_stream()(words(garbage), metadata=running.bearer()),  # type: ignore[arg-type]
    ):
        assert (await refused(call)).code is Code.INVALID_ARGUMENT
    assert running.echo.calls == []


# deadline


async def test_the_default_deadline_holds_where_the_caller_has_none(running: Running) -> None:
    running.echo.act = _forever
    begun = SystemClock().monotonic()
    got = await refused(running.unary("Expected")("x", metadata=running.bearer()))
    took = SystemClock().monotonic() - begun
    assert (got.code, got.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert 0.09 < took < 30, "it is 0.1 s, and 60 s for who asks for them"
    assert running.echo.cancelled.is_set()


async def test_the_maximum_shortens_a_longer_deadline(running: Running) -> None:
    running.echo.act = _forever
    begun = SystemClock().monotonic()
    got = await refused(running.unary("Quick")("x", metadata=running.bearer(), timeout=60))
    assert got.code is Code.DEADLINE_EXCEEDED
    assert 0.18 < SystemClock().monotonic() - begun < 30


async def test_the_deadlines_of_all_methods_are_stretched(held: KeySet, grpc_config: Grpc) -> None:
    servicer, metrics = echo.Echo(), Metrics()
    server = make_server(servicer, held, metrics, config=grpc_config, deadline=Deadline(stretch=1000.0))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, channel, servicer, metrics, held)
        before = SystemClock().monotonic()
        for seconds in (None, 50, 500):
            await running.unary("Quick")("x", metadata=running.bearer(), timeout=seconds)
        after = SystemClock().monotonic()
    await server.stop()
    for call, seconds in zip(servicer.calls, (100, 50, 200), strict=True):
        assert call is not None
        assert call.deadline is not None
        assert before + seconds * 0.94 < call.deadline < after + seconds * 0.96


async def test_the_callers_own_deadline_ends_the_work(running: Running, shape: str) -> None:
    running.echo.act = _forever
    for seconds in (0.15, 2, 10):  # a busy machine may need longer than the first for the way there
        got = await refused(call_of(running, shape)("x", metadata=running.bearer(), timeout=seconds))
        assert got.code is Code.DEADLINE_EXCEEDED
        if running.echo.entered.is_set():
            break
    async with asyncio.timeout(10):
        await running.echo.cancelled.wait()


async def test_a_handler_that_swallows_its_cancellation_is_late_all_the_same(running: Running) -> None:
    async def stubborn(_text: str) -> str:
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            return "too late"
        return ""

    running.echo.act = stubborn
    assert (await refused(running.unary("Quick")("x", metadata=running.bearer()))).code is Code.DEADLINE_EXCEEDED


async def test_an_exception_made_of_the_deadline_is_the_deadline(running: Running) -> None:
    async def translate(_text: str) -> str:
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None
        return ""

    running.echo.act = translate
    assert (await refused(running.unary("Quick")("x", metadata=running.bearer()))).code is Code.DEADLINE_EXCEEDED


async def test_work_ends_when_the_caller_goes(running: Running, shape: str) -> None:
    running.echo.act = _forever
    call = call_of(running, shape)("x", metadata=running.bearer(), timeout=60)
    reading = asyncio.ensure_future(answers(call))
    await running.echo.entered.wait()
    call.cancel()
    async with asyncio.timeout(30):
        await running.echo.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await reading
    label = {
        "unary": "Unary",
        "server_stream": "ServerStream",
        "client_stream": "ClientStream",
        "bidi_stream": "BidiStream",
    }
    await eventually(
        lambda: (
            running.sample(
                "grpc_server_handled_total", grpc_type=shape, grpc_method=label[shape], grpc_code="CANCELLED"
            )
            == 1
        ),
        "the call is counted as cancelled",
    )


async def test_a_stream_that_fails_closes_its_producer_at_once(running: Running) -> None:
    async def fail(text: str) -> str:
        if text == "b":
            raise not_found("device", "d1")
        return text

    running.echo.act = fail
    call = running.server_stream()("abc", metadata=running.bearer())
    assert (await call.read()).text == "a"
    assert (await refused(call.read())).reason == "DEVICE_NOT_FOUND"


# authentication


async def test_no_token(running: Running, shape: str) -> None:
    got = await refused(call_of(running, shape)("x"))
    assert (got.code, got.reason) == (Code.UNAUTHENTICATED, "TOKEN_MISSING")
    assert running.echo.calls == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("Basic abc", "TOKEN_MISSING"),
        ("Bearer ", "TOKEN_MISSING"),
        ("Bearer a.b.c", "TOKEN_INVALID"),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", "TOKEN_INVALID"),
        ("Bearer " + "x" * 9000, "TOKEN_INVALID"),
    ],
)
async def test_a_bad_token(running: Running, given: str, reason: str) -> None:
    got = await refused(running.unary()("x", metadata=(("authorization", given),)))
    assert (got.code, got.reason) == (Code.UNAUTHENTICATED, reason)


async def test_an_expired_token(running: Running) -> None:
    then = SystemClock().now().replace(year=2020)
    token = tokens.mint(running.keys, running.auth, Grant("t1", "me"), then)
    got = await refused(running.unary()("x", metadata=(("authorization", f"Bearer {token}"),)))
    assert (got.code, got.reason) == (Code.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_a_scope_too_few(running: Running, shape: str) -> None:
    got = await refused(call_of(running, shape)("x", metadata=running.bearer("devices:read", "users:admin")))
    assert (got.code, got.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    assert got.metadata == {"scope": "devices:write"}


async def test_a_larger_scope_will_do(running: Running) -> None:
    assert (await running.unary()("x", metadata=running.bearer("devices:admin"))).text == "x"


async def test_a_method_by_session_token_needs_none_but_believes_no_bad_one(running: Running) -> None:
    method = running.unary("BySession")
    assert (await method("x")).text == "x"
    assert running.echo.calls[0] is not None
    assert running.echo.calls[0].caller is None
    assert (await refused(method("x", metadata=(("authorization", "Bearer a.b.c"),)))).reason == "TOKEN_INVALID"
    assert (await refused(method("x", metadata=running.bearer("users:admin")))).reason == "SCOPE_MISSING"


# validation and order


async def test_a_request_that_breaks_a_rule_does_not_reach_the_handler(running: Running, shape: str) -> None:
    got = await refused(call_of(running, shape)("bad", metadata=running.bearer()))
    assert (got.code, got.violations[0].field) == (Code.INVALID_ARGUMENT, "text")
    assert running.echo.calls == []


async def test_authentication_comes_before_validation(running: Running) -> None:
    assert (await refused(running.unary()("bad"))).code is Code.UNAUTHENTICATED
    assert (await refused(running.unary()(b"\xff\xff"))).code is Code.UNAUTHENTICATED


async def test_every_outcome_is_counted_and_timed_under_the_usual_names(running: Running, shape: str) -> None:
    await answers(call_of(running, shape)("x", metadata=running.bearer()))
    await refused(call_of(running, shape)("x"))
    await refused(call_of(running, shape)("bad", metadata=running.bearer()))
    name = {
        "unary": "Unary",
        "server_stream": "ServerStream",
        "client_stream": "ClientStream",
        "bidi_stream": "BidiStream",
    }
    labels = {"grpc_type": shape, "grpc_method": name[shape]}
    assert running.sample("grpc_server_started_total", **labels) == 3
    for code in ("OK", "UNAUTHENTICATED", "INVALID_ARGUMENT"):
        assert running.sample("grpc_server_handled_total", grpc_code=code, **labels) == 1
    assert running.sample("grpc_server_handling_seconds_count", **labels) == 3


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    got = await refused(running.unary("Nope")("x", metadata=running.bearer()))
    assert got.code is Code.UNIMPLEMENTED


async def test_the_server_goes_on_after_all_of_it(running: Running) -> None:
    async def fail(text: str) -> str:
        if text == "leak":
            raise asyncio.CancelledError
        if text == "hang":
            await asyncio.sleep(300)
        raise ValueError(text)

    running.echo.act = fail
    call = running.unary("Quick")
    outcomes = await asyncio.gather(
        *(call(text, metadata=running.bearer()) for text in ("leak", "hang", "x") * 30), return_exceptions=True
    )
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in outcomes)
    running.echo.act = echo.Echo._same
    assert (await running.unary()("fine", metadata=running.bearer())).text == "fine"


async def _forever(_text: str) -> str:
    await asyncio.Event().wait()
    return ""


async def test_these_tests_can_fail_a_handler_without_the_chain_hangs_on_a_leak() -> None:
    """The seeded bug: gRPC alone sends no status for a CancelledError that nobody asked for."""

    async def leak(_raw: bytes, _rpc: Any) -> bytes:
        raise asyncio.CancelledError

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Unary": grpc.unary_unary_rpc_method_handler(leak)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(echo.NAME, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"/{echo.NAME}/Unary")
        assert (await refused(call(b"", timeout=0.5))).code is Code.DEADLINE_EXCEEDED
    await server.stop(None)
