"""The exchange of session tokens by itself: what is asked, what is kept, and what each failure becomes."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from bas.devices.v2.devices_service_pb2 import ListDevicesResponse
from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionRequest, AuthenticateSessionResponse
from chassis.auth.tokens import Grant
from chassis.clock import FakeClock
from chassis.config import Config
from chassis.context import Caller
from chassis.errors import ApiError, Code, unauthenticated
from chassis.interceptors.stream import StreamCall
from chassis.policies import Policy
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from gateway.sessions import Sessions
from gateway.upstream import Metadata, UnaryCall

TRACE = (("x-request-id", "r1"),)


class Service:
    """AuthenticateSession as a function: `answer` is what it says, `fail` what it fails with."""

    def __init__(self, clock: FakeClock) -> None:
        self.answer = AuthenticateSessionResponse(tenant="acme")
        self.answer.session.session_id = "s1"
        self.answer.session.user_id = "ada"
        self.answer.session.scopes.extend(["devices:write", "users:read"])
        self.answer.session.expire_time.FromDatetime(clock.now())
        self.answer.session.expire_time.seconds += 3600
        self.fail: ApiError | None = None
        self.asked: list[tuple[str, float, Metadata]] = []

    async def __call__(self, request: bytes, seconds: float, metadata: Metadata) -> bytes:
        self.asked.append((AuthenticateSessionRequest.FromString(request).token, seconds, metadata))
        if self.fail is not None:
            raise self.fail
        return self.answer.SerializeToString()


class Signer:
    def __init__(self) -> None:
        self.grants: list[Grant] = []

    def __call__(self, grant: Grant) -> str:
        self.grants.append(grant)
        return f"signed-{len(self.grants)}"


class Exchange:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.service = Service(self.clock)
        self.signer = Signer()
        self.sessions = Sessions(self.service, self.signer, self.clock)

    async def __call__(self, token: str = "bas_s1_x", seconds: float = 5.0) -> str:
        return await self.sessions.exchange(token, seconds, TRACE)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


async def test_the_service_is_asked_each_time_and_the_token_signed_once_in_half_its_life(exchange: Exchange) -> None:
    assert [await exchange() for _ in range(3)] == ["Bearer signed-1"] * 3
    assert exchange.service.asked == [("bas_s1_x", 1.0, TRACE)] * 3  # no longer than the method may take
    assert exchange.signer.grants == [Grant("acme", "ada", ("devices:write", "users:read"), 60.0, "s1")]
    await exchange.clock.advance(29.9)
    assert await exchange() == "Bearer signed-1"
    await exchange.clock.advance(0.1)
    assert await exchange() == "Bearer signed-2"


async def test_a_refusal_is_not_softened_by_what_is_kept(exchange: Exchange) -> None:
    await exchange()
    exchange.service.fail = unauthenticated("SESSION_INVALID", "whatever")
    with pytest.raises(ApiError) as refused:
        await exchange()
    assert (refused.value.reason, refused.value.message) == ("SESSION_INVALID", "The session token is not valid.")


@pytest.mark.parametrize(("left", "ttl"), [(3600, 60.0), (60, 60.0), (10, 10.0), (0, 5.0), (-5, 5.0)], ids=str)
async def test_a_token_ends_with_the_session_that_is_about_to(exchange: Exchange, left: int, ttl: float) -> None:
    exchange.service.answer.session.expire_time.FromDatetime(exchange.clock.now())
    exchange.service.answer.session.expire_time.seconds += left
    await exchange()
    assert exchange.signer.grants[0].ttl == pytest.approx(ttl, abs=1.0)
    assert 5.0 <= exchange.signer.grants[0].ttl <= 60.0


def _change(name: str, value: Any) -> Callable[[AuthenticateSessionResponse], None]:
    def change(answer: AuthenticateSessionResponse) -> None:
        setattr(answer if name == "tenant" else answer.session, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("tenant", "other"),
        _change("session_id", "s2"),
        _change("user_id", "eve"),
        lambda answer: answer.session.scopes.append("users:write"),
        lambda answer: answer.session.ClearField("scopes"),
    ],
    ids=["tenant", "session", "user", "more scopes", "no scopes"],
)
async def test_a_token_is_never_lent_to_somebody_else(
    exchange: Exchange, change: Callable[[AuthenticateSessionResponse], None]
) -> None:
    first = await exchange()
    change(exchange.service.answer)
    assert await exchange() != first
    said = exchange.service.answer
    assert exchange.signer.grants[-1] == Grant(
        said.tenant, said.session.user_id, tuple(said.session.scopes), 60.0, said.session.session_id
    )


async def test_unknown_scopes_are_left_out(exchange: Exchange) -> None:
    exchange.service.answer.session.scopes[:] = ["devices:read", "rockets:launch", "devices:admin2"]
    await exchange()
    assert exchange.signer.grants[0].scopes == ("devices:read",)


async def test_what_is_kept_is_bounded(exchange: Exchange) -> None:
    for number in range(10_050):
        exchange.service.answer.session.session_id = f"s{number}"
        await exchange()
    assert len(exchange.sessions) == 10_000
    signed = len(exchange.signer.grants)
    await exchange()
    assert len(exchange.signer.grants) == signed  # the last one is kept
    exchange.service.answer.session.session_id = "s0"
    await exchange()
    assert len(exchange.signer.grants) == signed + 1  # the first one is not


@pytest.mark.parametrize("token", ["bas_" + "a" * 8189, "a" * 1_000_000, "bas_\ud800"])
async def test_nobody_is_asked_about_what_cannot_be_a_token(exchange: Exchange, token: str) -> None:
    with pytest.raises(ApiError) as refused:
        await exchange(token)
    assert refused.value.reason == "SESSION_INVALID"
    assert exchange.service.asked == []


@pytest.mark.parametrize("code", list(Code))
async def test_only_the_services_own_word_is_a_refusal(exchange: Exchange, code: Code) -> None:
    exchange.service.fail = ApiError(code, "ANY", "Any.", retry_after=7.0)
    with pytest.raises(ApiError) as failed:
        await exchange()
    if code in (Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT):
        assert failed.value.reason == "SESSION_INVALID"
    else:
        assert (failed.value.code, failed.value.reason) == (Code.UNAVAILABLE, "SESSIONS_UNAVAILABLE")
        assert failed.value.retry_after == 7.0


async def test_whose_deadline_it_was(exchange: Exchange) -> None:
    exchange.service.fail = ApiError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "Late.")
    with pytest.raises(ApiError) as short:
        await exchange(seconds=0.2)
    assert exchange.service.asked[-1][1] == 0.2
    assert short.value.code is Code.DEADLINE_EXCEEDED
    with pytest.raises(ApiError) as stalled:
        await exchange(seconds=5.0)
    assert (stalled.value.code, stalled.value.retry_after) == (Code.UNAVAILABLE, 1.0)


class _Upstream:
    """A service that answers all calls alike."""

    def __init__(self, call: UnaryCall) -> None:
        self._call = call

    def unary(self, path: str, policy: Policy) -> UnaryCall:
        del path, policy
        return self._call

    def stream(self, path: str) -> StreamCall:
        raise NotImplementedError(path)

    async def ready(self, service: str, seconds: float) -> bool:
        del service, seconds
        return True

    async def close(self) -> None:
        return


class _Nobody:
    def verify(self, authorization: str) -> Caller:
        raise unauthenticated("TOKEN_MISSING", authorization)


async def test_finding_out_who_calls_takes_its_part_of_the_deadline(exchange: Exchange) -> None:
    told: list[tuple[float, Metadata]] = []

    async def authenticate(request: bytes, seconds: float, metadata: Metadata) -> bytes:
        await exchange.clock.advance(0.4)
        return await exchange.service(request, seconds, metadata)

    async def devices(request: bytes, seconds: float, metadata: Metadata) -> bytes:
        del request
        told.append((seconds, metadata))
        return ListDevicesResponse().SerializeToString()

    app = build(
        Config(),
        clock=exchange.clock,
        verifier=_Nobody(),
        metrics=Metrics(),
        upstreams={"sessions": _Upstream(authenticate), "devices": _Upstream(devices)},
        random_bytes=os.urandom,
        issue=exchange.signer,
    ).app
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/api/v2/devices",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer bas_s1_x"), (b"request-timeout", b"900ms")],
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    assert exchange.service.asked[0][1] == pytest.approx(0.9)
    ((seconds, metadata),) = told
    assert seconds == pytest.approx(0.5)
    asked = dict(exchange.service.asked[0][2])
    assert dict(metadata) == asked | {"authorization": "Bearer signed-1"}  # one trace, one request id
    assert "authorization" not in asked
