"""The session cookie: how it is set, when it is believed, and that other sites cannot make use of it."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest
import pytest_asyncio

from gateway import crosssite
from gateway.request import Request
from tests.integration.gateway.deployment import SignedIn, bearer, deployment
from tests.support import patience
from tests.support.valkey import Valkey

PATHS = ("/api/sessions:cookie", "/api/v2/sessions:cookie")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, valkey_server: Valkey) -> AsyncIterator[SignedIn]:
    async with deployment(tmp_path_factory.mktemp("cookies"), valkey_server.url) as made:
        yield made


@pytest.fixture
def signed(shared: SignedIn) -> SignedIn:
    """The deployment of the module, with no device and a client that has no cookie."""
    shared.devices.reset()
    shared.http.cookies.clear()
    return shared


def with_cookie(token: str, **headers: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; bas_session={token}; x=y"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }


def origin_of(signed: SignedIn) -> str:
    return signed.urls[0]


@pytest.mark.parametrize("path", PATHS)
async def test_signing_in_and_out_as_a_browser_does(signed: SignedIn, path: str) -> None:
    session_id, token = await signed.sign_in("ada", "devices:write")
    page = {"sec-fetch-site": "same-origin", "origin": origin_of(signed)}
    async with httpx.AsyncClient(base_url=signed.urls[0], headers=patience.HEADERS) as browser:
        answer = await browser.post(path, json={"token": token}, headers=page)
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
        assert browser.cookies["bas_session"] == token
        assert (await browser.get("/api/devices")).status_code == 200
        made = await browser.post("/api/devices", json={"displayName": "Desk"}, headers=page)
        assert made.status_code == 201
        assert (signed.seen().subject, signed.seen().session_id) == ("ada", session_id)
        gone = await browser.delete(path, headers=page)
        assert gone.status_code == 204
        assert "bas_session" not in browser.cookies
        assert (await browser.get("/api/devices")).json()["code"] == "TOKEN_MISSING"
        # The session itself goes on until it is revoked.
        await browser.post(path, headers=page | bearer(token))
        assert (await browser.get("/api/devices")).status_code == 200
        await signed.revoke(session_id)
        assert (await browser.get("/api/devices")).json()["code"] == "SESSION_INVALID"


async def test_attributes(signed: SignedIn) -> None:
    _, token = await signed.sign_in("ada", "devices:read", idleTtl="60s", absoluteTtl="3600s")
    answer = await signed.http.post(PATHS[0], json={"token": token})
    (text,) = answer.headers.get_list("set-cookie")
    morsel = SimpleCookie(text)["bas_session"]
    assert morsel.value == token
    assert (morsel["path"], morsel["samesite"], morsel["httponly"], morsel["secure"]) == ("/", "Lax", True, "")
    assert morsel["domain"] == ""
    assert 3500 < int(morsel["max-age"]) <= 3600  # not the idle time-out: use puts that off
    (away,) = (await signed.http.delete(PATHS[0])).headers.get_list("set-cookie")
    assert away == "bas_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ({"host": "localhost:8080"}, False),
        ({"host": "LOCALHOST"}, False),
        ({"host": "app.localhost"}, False),
        ({"host": "127.8.0.1:1"}, False),
        ({"host": "[::1]:8080"}, False),
        ({"host": "api.example"}, True),
        ({"host": "localhost.example"}, True),
        ({"host": "10.0.0.1:8080"}, True),
        ({"host": "[2001:db8::1]"}, True),
        ({"host": ""}, True),
        ({"host": "localhost", "x-forwarded-proto": "https"}, True),
        ({"host": "localhost", "x-forwarded-proto": "http"}, True),
        ({"host": "localhost", "forwarded": "for=192.0.2.1"}, True),
        ({"host": "localhost", "origin": "https://localhost"}, True),
        ({"host": "api.example", "x-forwarded-proto": "http"}, True),
    ],
)
async def test_secure_everywhere_but_on_this_machine(
    signed: SignedIn, headers: dict[str, str], *, secure: bool
) -> None:
    _, token = await signed.sign_in()
    for answer in (
        await signed.http.post(PATHS[0], json={"token": token}, headers=headers),
        await signed.http.delete(PATHS[0], headers=headers),
    ):
        assert answer.status_code == 204, answer.text
        assert ("Secure" in answer.headers["set-cookie"].split("; ")) is secure


OWN = "http://{host}"
MATRIX = [
    # Sec-Fetch-Site, Origin, may it change something by its cookie
    ("same-origin", OWN, True),
    ("same-origin", None, True),
    ("none", None, True),
    ("same-site", OWN, False),
    ("same-site", "https://evil.{host}", False),
    ("cross-site", "https://evil.example", False),
    ("cross-site", OWN, False),
    ("cross-site", None, False),
    ("Same-Origin", OWN, False),
    ("", OWN, False),
    (None, OWN, True),
    (None, "https://{host}", True),
    (None, "HTTP://{host}", True),
    (None, "null", False),
    (None, "", False),
    (None, "https://evil.example", False),
    (None, "https://app.example", False),
    (None, "http://{host}.evil.example", False),
    (None, "http://user@{host}", False),
    (None, "ftp://{host}", False),
    (None, "http://127.0.0.1", False),
    (None, "http://127.0.0.1:1", False),
    (None, "{host}", False),
    (None, None, False),
]


@pytest.mark.parametrize(("site", "origin", "allowed"), MATRIX)
async def test_cross_site_requests(signed: SignedIn, site: str | None, origin: str | None, *, allowed: bool) -> None:
    await check_cross_site(signed, site, origin, allowed=allowed)


async def test_a_gateway_that_looks_for_its_name_in_the_origin_is_found_out(
    signed: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lax(request: Request) -> bool:
        return request.header(b"host") in request.header(b"origin")

    monkeypatch.setattr(crosssite, "own_origin", lax)
    with pytest.raises(AssertionError):
        await check_cross_site(signed, None, "http://{host}.evil.example", allowed=False)


async def check_cross_site(signed: SignedIn, site: str | None, origin: str | None, *, allowed: bool) -> None:
    _, token = await signed.sign_in("ada", "devices:admin")
    said: dict[str, str] = {}
    if site is not None:
        said["sec-fetch-site"] = site
    if origin is not None:
        said["origin"] = origin.replace("{host}", signed.urls[0].removeprefix("http://"))
    changes = [
        await signed.http.post("/api/devices", json={}, headers=with_cookie(token) | said),
        await signed.http.patch("/api/devices/made", json={"displayName": "x"}, headers=with_cookie(token) | said),
        await signed.http.delete("/api/devices/made", headers=with_cookie(token) | said),
    ]
    told = len(signed.devices.requests)
    assert told == (3 if allowed else 0)
    if allowed:
        assert [each.status_code for each in changes] == [201, 200, 204]
    else:
        assert {(each.status_code, each.json()["code"]) for each in changes} == {(403, "CROSS_SITE_REQUEST")}
    # Reading changes nothing, and a bearer is sent by no browser of its own accord.
    assert (await signed.http.get("/api/devices", headers=with_cookie(token) | said)).status_code == 200
    by_bearer = await signed.http.post("/api/devices", json={}, headers=bearer(token) | with_cookie(token) | said)
    assert by_bearer.status_code == 201
    # Signing in or out may be asked for by who is no browser, and not by another site.
    may = 204 if allowed or not said else 403
    assert (await signed.http.post(PATHS[0], json={"token": token}, headers=said)).status_code == may
    assert (await signed.http.delete(PATHS[0], headers=said)).status_code == may


async def test_which_credential_counts(signed: SignedIn) -> None:
    _, ada = await signed.sign_in("ada")
    _, eve = await signed.sign_in("eve")
    await signed.http.get("/api/devices", headers=with_cookie(ada) | bearer(eve))
    assert signed.seen().subject == "eve"
    await signed.http.get("/api/devices", headers=with_cookie("bas_bad") | signed.caller())
    assert signed.seen().subject == "backend"
    assert (await signed.http.get("/api/devices", headers=with_cookie(ada) | bearer("bad"))).status_code == 401
    caller = signed.caller()["authorization"].removeprefix("Bearer ")
    assert (await signed.http.get("/api/devices", headers=with_cookie(caller))).json()["code"] == "SESSION_INVALID"


async def test_two_cookies(signed: SignedIn) -> None:
    _, ada = await signed.sign_in("ada")
    _, eve = await signed.sign_in("eve")
    for several in (
        [("cookie", f"bas_session={ada}; bas_session={eve}")],
        [("cookie", f"bas_session={ada}"), ("cookie", f"bas_session={eve}")],
        [("cookie", f"bas_session={ada};bas_session=")],
    ):
        answer = await signed.http.get("/api/devices", headers=several)
        assert (answer.status_code, answer.json()["code"]) == (400, "COOKIE_AMBIGUOUS")
    for one in (
        [("cookie", f"bas_session={ada}; bas_session={ada}")],
        [("cookie", "a=b"), ("cookie", f"bas_session={ada}")],
        [("cookie", f"bas_session={ada}"), ("cookie", "a=b")],
        [("cookie", f"xbas_session={eve};bas_session={ada};bas_sessio={eve}; BAS_SESSION={eve}")],
    ):
        assert (await signed.http.get("/api/devices", headers=one)).status_code == 200
        assert signed.seen().subject == "ada"


async def test_no_other_origin_is_given_the_cookie(signed: SignedIn) -> None:
    _, token = await signed.sign_in()
    answer = await signed.http.get("/api/devices", headers=with_cookie(token, origin="https://app.example"))
    assert "access-control-allow-credentials" not in answer.headers
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    preflight = await signed.http.options(PATHS[0], headers=asked)
    assert (preflight.status_code, preflight.headers["allow"]) == (204, "DELETE, OPTIONS, POST")
    assert "access-control-allow-methods" not in preflight.headers


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({}, 401, "TOKEN_MISSING"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 401, "TOKEN_MISSING"),
        ({"json": {"token": None}}, 401, "TOKEN_MISSING"),
        ({"json": {"token": 5}}, 400, "INVALID_ARGUMENT"),
        ({"json": ["bas_a_b"]}, 400, "INVALID_ARGUMENT"),
        ({"json": {"token": "bas_a_b", "more": 1}}, 400, "INVALID_ARGUMENT"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "MALFORMED_JSON"),
        ({"content": b'{"token":"a","token":"b"}', "headers": {"content-type": "application/json"}}, 400, None),
        ({"data": {"token": "bas_a_b"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"json": {"token": "a" * 5_000_000}}, 413, "BODY_TOO_LARGE"),
        ({"headers": {"authorization": "Bearer ey.J.x"}}, 401, "SESSION_INVALID"),
        ({"headers": {"authorization": "Bearer bas_a"}, "json": {"token": "bas_b"}}, 400, "INVALID_ARGUMENT"),
    ],
)
async def test_bad_sign_ins(signed: SignedIn, sent: dict[str, object], status: int, code: str | None) -> None:
    answer = await signed.http.post(PATHS[0], **sent)  # type: ignore[arg-type]  # httpx's own keywords
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code or status == 400
    assert "set-cookie" not in answer.headers


async def test_other_methods_and_a_body_to_delete(signed: SignedIn) -> None:
    answer = await signed.http.get(PATHS[0])
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, OPTIONS, POST")
    assert (await signed.http.request("DELETE", PATHS[0], json={})).status_code == 400
    metrics = (await signed.http.get("/metrics")).text
    assert 'route="/api/v2/sessions:cookie"' in metrics


async def test_answers_vary_by_the_cookie(signed: SignedIn) -> None:
    _, token = await signed.sign_in("ada", "devices:write")
    made = await signed.http.post("/api/devices", json={"deviceId": "d1"}, headers=bearer(token))
    assert made.status_code == 201
    answer = await signed.http.get("/api/devices/d1", headers=with_cookie(token))
    assert answer.headers["vary"] == "Authorization, Cookie, API-Version"
