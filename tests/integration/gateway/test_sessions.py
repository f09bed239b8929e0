"""Session tokens at the gateway: in over REST, exchanged on the way, and worth nothing once the session is revoked."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionResponse
from chassis.clock import SystemClock
from gateway.sessions import Sessions
from gateway.upstream import Metadata
from tests.integration.gateway.deployment import SignedIn, bearer, deployment
from tests.support.eventually import eventually
from tests.support.valkey import Valkey


@pytest.fixture
async def signed(tmp_path: Path, valkey: Valkey) -> AsyncIterator[SignedIn]:
    async with deployment(tmp_path, valkey.url, gateways=2) as made:
        yield made


def alike(answer: httpx.Response) -> tuple[int, str, str]:
    """All that a client can see of a refusal, but for the request's id."""
    headers = sorted(
        f"{name}: {value}" for name, value in answer.headers.items() if name not in ("date", "x-request-id")
    )
    return answer.status_code, "\n".join(headers), answer.text.replace(answer.headers["x-request-id"], "ID")


async def test_a_session_calls_as_its_user(signed: SignedIn) -> None:
    session_id, token = await signed.sign_in("ada", "devices:write", "users:read")
    answer = await signed.http.post("/api/devices", json={"displayName": "Desk"}, headers=bearer(token))
    assert answer.status_code == 201, answer.text
    seen = signed.seen()
    assert (seen.tenant, seen.subject, seen.session_id) == ("acme", "ada", session_id)
    assert seen.scopes == {"devices:read", "devices:write", "users:read"}
    assert token not in str(signed.devices.metadata)


async def test_the_callers_token_is_short_lived_and_used_again(signed: SignedIn) -> None:
    _, token = await signed.sign_in()
    for _ in range(3):
        await signed.http.get("/api/devices", headers=bearer(token))
    sent = {str(each["authorization"]) for each in signed.devices.metadata}
    assert len(sent) == 1
    assert signed.seen().expires_at - SystemClock().now().timestamp() <= 60


async def test_scopes_are_those_of_the_session(signed: SignedIn) -> None:
    _, token = await signed.sign_in("ada", "devices:read")
    answer = await signed.http.post("/api/sessions", json={"userId": "eve"}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_MISSING")


async def check_revocations(signed: SignedIn, rounds: int) -> None:
    for round_ in range(rounds):
        session_id, token = await signed.sign_in()
        for client in signed.clients:
            assert (await client.get("/api/devices", headers=bearer(token))).status_code == 200
        await signed.revoke(session_id, signed.clients[round_ % 2])
        calls = [client.get("/api/devices", headers=bearer(token)) for client in signed.clients * 3]
        for answer in await asyncio.gather(*calls):
            assert (answer.status_code, answer.json().get("code")) == (401, "SESSION_INVALID")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_revocation_holds_at_once_at_every_gateway(signed: SignedIn) -> None:
    await check_revocations(signed, 20)


async def test_a_gateway_that_remembers_who_called_is_found_out(
    signed: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Sessions.authenticate
    remembered: dict[str, AuthenticateSessionResponse] = {}

    async def remember(self: Sessions, token: str, seconds: float, metadata: Metadata) -> AuthenticateSessionResponse:
        if token not in remembered:
            remembered[token] = await ask(self, token, seconds, metadata)
        return remembered[token]

    monkeypatch.setattr(Sessions, "authenticate", remember)
    with pytest.raises(AssertionError):
        await check_revocations(signed, 1)


async def test_odd_tokens_are_refused_alike(signed: SignedIn) -> None:
    session_id, token = await signed.sign_in()
    revoked_id, revoked = await signed.sign_in()
    await signed.revoke(revoked_id)
    expired_id, expired = await signed.sign_in("ada", "devices:read", idleTtl="1s", absoluteTtl="1s")
    odd = {
        "revoked": revoked,
        "unknown": token.replace(session_id, "0" * len(session_id)),
        "cut": token[:-1],
        "cut short": token[:12],
        "nothing but the prefix": "bas_",
        "flipped": token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:],
        "longer": token + "A",
        "twice": token + token,
        "spaces within": token[:30] + " " + token[31:],
        "latin-1": token[:30] + "\xe9\xff" + token[32:],
        "tab": token[:30] + "\t" + token[31:],
        "quoted": f'bas_"{token}"',
        "4097 bytes": "bas_" + "a" * 4093,
        "8 KiB and one": "bas_" + "a" * 8189,
        "16 KiB": "bas_" + "a" * 16384,
    }
    answers: dict[tuple[int, str, str], str] = {}
    for client in signed.clients:
        for name, each in odd.items():
            headers = {b"authorization": b"Bearer " + each.encode("latin-1")}
            answers[alike(await client.get("/api/devices", headers=headers))] = name
            cookie = {b"cookie": b"bas_session=" + each.encode("latin-1")}
            answers[alike(await client.get("/api/devices", headers=cookie))] = name
            answers[alike(await client.post("/api/sessions:cookie", json={"token": each}))] = name
    for each in ("a" * 1_000_000, "bas_" + "\U0001f600" * 250_000, "\ud800", "", "a\0b", "\u202e" + token):
        sent = json.dumps({"token": each}).encode()
        kind = {"content-type": "application/json"}
        answers[alike(await signed.http.post("/api/sessions:cookie", content=sent, headers=kind))] = each[:4]

    async def over() -> bool:
        return (await signed.http.get("/api/devices", headers=bearer(expired))).status_code == 401

    await eventually(over, "the session is over")
    answers[alike(await signed.http.get("/api/devices", headers=bearer(expired)))] = "expired"
    assert len(answers) == 1, answers
    ((status, headers_, _),) = answers
    assert status == 401
    assert 'www-authenticate: Bearer error="invalid_token"' in headers_
    assert {signed.said_by(each).session_id for each in signed.devices.metadata} <= {expired_id}  # before it was
    assert (await signed.http.get("/api/devices", headers=bearer(token))).status_code == 200


async def test_a_head_of_a_megabyte_is_not_read(signed: SignedIn) -> None:
    answer = await signed.http.get("/api/devices", headers=bearer("bas_" + "a" * 1_000_000))
    assert answer.status_code == 431


async def test_the_scheme_is_any_case_and_a_session_of_another_tenant_stays_there(signed: SignedIn) -> None:
    _, token = await signed.sign_in(tenant="other")
    answer = await signed.http.get("/api/devices", headers={"authorization": f"bEARER {token}"})
    assert answer.status_code == 200
    assert signed.seen().tenant == "other"


async def test_without_the_sessions_service_nobody_can_tell(signed: SignedIn) -> None:
    _, token = await signed.sign_in()
    assert (await signed.http.get("/api/devices", headers=bearer(token))).status_code == 200
    await signed.server.stop()
    for each in (token, token[:-1]):
        for headers in (bearer(each), {"cookie": f"bas_session={each}"}):
            answer = await signed.http.get("/api/devices", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "SESSIONS_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
    answer = await signed.http.post("/api/sessions:cookie", json={"token": token})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await signed.http.get("/api/devices", headers=signed.caller())).status_code == 200


async def test_a_missing_session_hides_what_there_is(signed: SignedIn) -> None:
    for path in ("/api/nothing", "/api/v2/devices:nothing/x"):
        answer = await signed.http.get(path, headers=bearer("bas_a_b"))
        assert answer.status_code == 401
    _, token = await signed.sign_in()
    assert (await signed.http.get("/api/nothing", headers=bearer(token))).status_code == 404
    assert (await signed.http.put("/api/devices", headers=bearer(token))).status_code == 405
    bad = bearer(token) | {"request-timeout": "soon"}
    assert (await signed.http.get("/api/devices", headers=bad)).status_code == 400
    assert (await signed.http.get("/api/devices", headers=bad | bearer("bas_x"))).status_code == 401


async def test_a_token_in_the_body_needs_no_other(signed: SignedIn) -> None:
    session_id, token = await signed.sign_in("ada", "devices:read")
    for extra in ({}, bearer(token), {"cookie": "bas_session=bas_old"}, signed.caller()):
        answer = await signed.http.post("/api/sessions:authenticate", json={"token": token}, headers=extra)
        assert (answer.status_code, answer.json()["session"]["sessionId"]) == (200, session_id), extra
    refused = await signed.http.post("/api/sessions:authenticate", json={"token": token}, headers=bearer("bas_x"))
    assert refused.status_code == 401
    foreign = await signed.http.post(
        "/api/sessions:authenticate", json={"token": token}, headers=signed.caller("other")
    )
    assert (foreign.status_code, foreign.json()["code"]) == (401, "SESSION_INVALID")
    refreshed = await signed.http.post("/api/sessions:refresh", json={"token": token})
    assert refreshed.status_code == 200
    assert (await signed.http.get("/api/devices", headers=bearer(refreshed.json()["token"]))).status_code == 200


async def test_a_cache_that_is_away_is_nobodys_error(tmp_path: Path, own_valkey: Valkey) -> None:
    async with deployment(tmp_path, own_valkey.url, gateways=2) as signed:
        _, token = await signed.sign_in()
        other_id, other = await signed.sign_in()
        assert (await signed.http.get("/api/devices", headers=bearer(token))).status_code == 200
        await signed.revoke(other_id)
        await own_valkey.stop()
        for client in signed.clients:
            assert (await client.get("/api/devices", headers=bearer(token))).status_code == 200
            assert (await client.get("/api/devices", headers=bearer(other))).status_code == 401


async def test_caller_tokens_go_on_as_they_are(signed: SignedIn) -> None:
    headers = signed.caller()
    assert (await signed.http.get("/api/devices", headers=headers)).status_code == 200
    assert signed.devices.metadata[-1]["authorization"] == headers["authorization"]
