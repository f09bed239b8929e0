"""The credential of a long answer, asked about again while it lasts."""

import pytest

from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionRequest, AuthenticateSessionResponse
from chassis.auth.tokens import Grant
from chassis.clock import FakeClock
from chassis.context import Caller
from chassis.errors import ApiError, Code, unauthenticated, unavailable
from gateway.auth import Authenticator
from gateway.request import Message, Request
from gateway.sessions import Sessions
from gateway.upstream import Metadata

READ = frozenset({"events:read"})


class Verifier:
    """Knows `Bearer <subject>` until it has expired."""

    def __init__(self) -> None:
        self.expired = False

    def verify(self, authorization: str) -> Caller:
        if self.expired:
            raise unauthenticated("TOKEN_EXPIRED", "The token has expired.")
        return Caller("acme", authorization.removeprefix("Bearer "), READ, 1e9)


class Service:
    """The sessions service: one session, until it is revoked or nobody can tell."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.error: ApiError | None = None
        self.asked: list[Metadata] = []

    async def authenticate(self, request: bytes, seconds: float, metadata: Metadata) -> bytes:
        del seconds
        self.asked.append(metadata)
        assert AuthenticateSessionRequest.FromString(request).token == "bas_s1_secret"
        if self.error is not None:
            raise self.error
        answer = AuthenticateSessionResponse(tenant="acme")
        answer.session.user_id = "ada"
        answer.session.expire_time.FromSeconds(int(self._clock.now().timestamp()) + 3600)
        return answer.SerializeToString()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def service(clock: FakeClock) -> Service:
    return Service(clock)


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def authenticator(verifier: Verifier, service: Service, clock: FakeClock) -> Authenticator:
    issued = 0

    def issue(grant: Grant) -> str:
        nonlocal issued
        issued += 1
        return f"{grant.subject}-{issued}"

    return Authenticator(verifier, Sessions(service.authenticate, issue, clock), clock, lambda: "00-1-1-01")


async def nothing() -> Message:
    raise AssertionError


def asked(authorization: str) -> Request:
    headers = [(b"authorization", authorization.encode())]
    scope = {"method": "GET", "raw_path": b"/", "query_string": b"", "headers": headers}
    return Request(scope, nothing, lambda: "r-1")


async def test_a_caller_token_is_good_until_it_expires(authenticator: Authenticator, verifier: Verifier) -> None:
    request = asked("Bearer ada")
    assert authenticator.begin(request) is None
    credential = authenticator.credential(request)
    assert (credential.caller.subject, credential.authorization, credential.session_token) == ("ada", "Bearer ada", "")
    assert await authenticator.renew(credential, 1.0, ()) == credential
    verifier.expired = True
    with pytest.raises(ApiError) as over:
        await authenticator.renew(credential, 1.0, ())
    assert over.value.reason == "TOKEN_EXPIRED"


async def test_a_session_is_asked_about_each_time(
    authenticator: Authenticator, service: Service, clock: FakeClock
) -> None:
    request = asked("Bearer bas_s1_secret")
    token = authenticator.begin(request)
    assert token is not None
    await authenticator.exchange(request, token, 1.0)
    credential = authenticator.credential(request)
    assert (credential.authorization, credential.session_token) == ("Bearer ada-1", token)
    assert await authenticator.renew(credential, 1.0, (("x-request-id", "r-1"),)) == credential
    assert service.asked[-1] == (("x-request-id", "r-1"),)
    await clock.advance(45)
    renewed = await authenticator.renew(credential, 1.0, ())
    assert (renewed.authorization, renewed.session_token) == ("Bearer ada-2", token)
    assert len(service.asked) == 3


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (unauthenticated("SESSION_INVALID", "No."), Code.UNAUTHENTICATED),
        (unavailable("STORE_AWAY", "Later."), Code.UNAVAILABLE),
    ],
)
async def test_a_session_that_ended_and_one_that_nobody_knows_of_are_two_things(
    authenticator: Authenticator, service: Service, told: ApiError, code: Code
) -> None:
    request = asked("Bearer bas_s1_secret")
    await authenticator.exchange(request, "bas_s1_secret", 1.0)
    service.error = told
    with pytest.raises(ApiError) as refused:
        await authenticator.renew(authenticator.credential(request), 1.0, ())
    assert refused.value.code is code
