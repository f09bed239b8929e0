"""Session tokens at the gateway: in over REST, exchanged on the way, and worth nothing once the session is revoked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from chassis.clock import SystemClock
from tests.integration.gateway.deployment import SignedIn, bearer, deployment
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


async def test_a_revocation_holds_at_once_at_every_gateway(signed: SignedIn) -> None:
    for round_ in range(20):
        session_id, token = await signed.sign_in()
        for client in signed.clients:
            assert (await client.get("/api/devices", headers=bearer(token))).status_code == 200
        await signed.revoke(session_id, signed.clients[round_ % 2])
        calls = [client.get("/api/devices", headers=bearer(token)) for client in signed.clients * 3]
        for answer in await asyncio.gather(*calls):
            assert (answer.status_code, answer.json()["code"]) == (401, "SESSION_INVALID")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
