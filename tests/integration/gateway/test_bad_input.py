"""Bad input over real HTTP: each is refused with the right status, naming the field, and never reaches the service."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.integration.gateway.conftest import MAX_BODY, Running
from tests.support import patience

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}


def assert_problem(answer: httpx.Response, status: int, field: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["instance"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "code"} <= document.keys()
    if field:
        assert document["errors"][0]["field"] == field, document


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "line 1, column 2"),
        (b'{\n  "deviceId": }', "line 2, column 15"),
        (b'{"deviceId":"a"} x', "Extra data"),
        (b'{"deviceId":"a","deviceId":"b"}', "twice"),
        (b'{"deviceId":NaN}', "NaN"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"deviceId":"a\x00"}', "control character"),
        (b"[" * 30000, "deep"),
        (b'{"displayName":' + b"9" * 5000 + b"}", "digits"),
    ],
)
async def test_malformed_json(http: httpx.AsyncClient, body: bytes, says: str) -> None:
    answer = await http.post("/api/v2/devices", content=body, headers=JSON)
    assert_problem(answer, 400)
    assert answer.json()["code"] == "MALFORMED_JSON"
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"displayNam":"x"}', "displayNam"),
        ('{"displayName":1}', "displayName"),
        ('{"displayName":"a","display_name":"b"}', "displayName"),
        ('{"labels":{"site":null}}', 'labels["site"]'),
        ('{"labels":{"site":1}}', 'labels["site"]'),
        ('{"labels":[]}', "labels"),
        ('{"status":"online"}', "status"),
        ('{"status":"DEVICE_STATUS_online"}', "status"),
        ('{"status":1.5}', "status"),
        ('{"createTime":"yesterday"}', "createTime"),
        ('{"deviceId":"\\ud800"}', "deviceId"),
        ("[]", "body"),
        ('"text"', "body"),
        ("7", "body"),
    ],
)
async def test_bodies_that_do_not_fit(http: httpx.AsyncClient, running: Running, body: str, field: str) -> None:
    answer = await http.post("/api/v2/devices", content=body, headers=JSON)
    assert_problem(answer, 400, field)
    assert running.devices.requests == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"readings":{"t":{"doubleValue":1,"stringValue":"x"}}}', 'readings["t"].stringValue'),
        ('{"readings":{"t":{"doubleValue":"warm"}}}', 'readings["t"].doubleValue'),
        ('{"readings":{"t":{"doubleValue":true}}}', 'readings["t"].doubleValue'),
        ('{"readings":{"t":{"doubleValue":1e400}}}', 'readings["t"].doubleValue'),
        ('{"readings":{"t":{"boolValue":"true"}}}', 'readings["t"].boolValue'),
        ('{"readings":{"t":{"time":5}}}', 'readings["t"].time'),
        ('{"readings":{"t":{"nope":5}}}', 'readings["t"].nope'),
        ('{"readings":{"t":5}}', 'readings["t"]'),
        ("[]", "body"),
        ("null", "body"),
    ],
)
async def test_nested_paths_are_named(http: httpx.AsyncClient, body: str, field: str) -> None:
    assert_problem(await http.post("/api/v2/devices/d1/telemetry", content=body, headers=JSON), 400, field)


@pytest.mark.parametrize("value", ['"9223372036854775808"', "9223372036854775808", "1.5", '"x"', "true", '" 1"'])
async def test_integers_out_of_range_or_shape(http: httpx.AsyncClient, value: str) -> None:
    body = f'{{"sequence":{value}}}'
    assert_problem(await http.post("/api/v2/devices/d1:heartbeat", content=body, headers=JSON), 400, "sequence")


@pytest.mark.parametrize("value", ['"7"', "7", "7.0", '"7.0"', "7e0"])
async def test_integers_in_all_their_spellings(http: httpx.AsyncClient, running: Running, value: str) -> None:
    body = f'{{"sequence":{value}}}'
    assert (await http.post("/api/v2/devices/d1:heartbeat", content=body, headers=JSON)).status_code == 200
    assert running.devices.requests[-1].sequence == 7


async def test_control_characters_reach_the_rules_of_the_service(http: httpx.AsyncClient, running: Running) -> None:
    await http.get("/api/v2/devices/a%00b")
    assert running.devices.requests[-1].device_id == "a\x00b"
    await http.post("/api/v2/devices", json={"displayName": "a\x00b"})
    assert running.devices.requests[-1].device.display_name == "a\x00b"


@pytest.mark.parametrize(
    "path", ["/api/v2/devices/%", "/api/v2/devices/%4", "/api/v2/devices/%zz", "/api/v2/devices/%ff", "/api/%"]
)
async def test_malformed_percent_in_the_path(http: httpx.AsyncClient, path: str) -> None:
    async with httpx.AsyncClient(timeout=patience.CLIENT) as raw:
        target = httpx.URL(http.base_url).copy_with(raw_path=path.encode())
        answer = await raw.get(target, headers=dict(http.headers))
    assert_problem(answer, 400)
    assert answer.json()["code"] == "MALFORMED_PATH"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_sise=1", "page_sise"),
        ("pageSize=x", "pageSize"),
        ("pageSize=1.0", "pageSize"),
        ("pageSize=2147483648", "pageSize"),
        ("pageSize=1&pageSize=1", "pageSize"),
        ("pageSize=1&page_size=2", "page_size"),
        ("filter=%zz", "filter"),
        ("filter=%ff", "filter"),
        ("%zz=1", "query"),
        ("filter.x=1", "filter.x"),
        ("filter[a]=1", "filter[a]"),
        ("=1", ""),
    ],
)
async def test_bad_queries(http: httpx.AsyncClient, running: Running, query: str, field: str) -> None:
    target = httpx.URL(http.base_url).copy_with(raw_path=f"/api/v2/devices?{query}".encode())
    async with httpx.AsyncClient(timeout=patience.CLIENT) as raw:
        answer = await raw.get(target, headers=dict(http.headers))
    assert_problem(answer, 400, field)
    assert running.devices.requests == []


async def test_the_nearest_name_is_suggested(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v2/devices?page_sise=1")
    assert "did you mean 'pageSize'" in answer.json()["detail"]
    body = await http.post("/api/v2/devices", json={"displayNam": "x"})
    assert "did you mean 'displayName'" in body.json()["detail"]


async def test_queries_in_both_spellings(http: httpx.AsyncClient, running: Running) -> None:
    for name in ("page_size", "pageSize"):
        assert (await http.get(f"/api/v2/devices?{name}=7&filter=a+%3D%20b&&")).status_code == 200
        assert (running.devices.requests[-1].page_size, running.devices.requests[-1].filter) == (7, "a = b")


async def test_what_the_path_binds_no_one_overrides(http: httpx.AsyncClient, running: Running) -> None:
    assert_problem(await http.get("/api/v2/devices/d1?device_id=d2"), 400, "device_id")
    assert_problem(await http.get("/api/v2/devices/d1?deviceId=d2"), 400, "deviceId")
    patch = await http.patch("/api/v2/devices/d1", json={"deviceId": "d2"})
    assert_problem(patch, 400, "deviceId")
    star = await http.post("/api/v2/devices/d1:heartbeat", json={"device_id": "d2"})
    assert_problem(star, 400, "deviceId")
    assert running.devices.requests == []
    assert (await http.post("/api/v2/devices/d1:heartbeat?device_id=d1", json={"deviceId": "d1"})).status_code == 200


async def test_what_the_body_binds_is_no_parameter(http: httpx.AsyncClient) -> None:
    assert_problem(await http.post("/api/v2/devices?device.display_name=x", json={}), 400, "device.display_name")
    assert_problem(await http.post("/api/v2/devices/d1:heartbeat?sequence=1"), 400, "sequence")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/v2/devices/d1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("DELETE", "/api/devices", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/api/v2/devices/d1:heartbeat", "OPTIONS, POST"),
        ("POST", "/api/v2/devices:count", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("TRACE", "/api/v2/devices", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_wrong_methods(http: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await http.request(method, path)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == allow
    options = await http.options(path, headers={"authorization": ""})
    assert options.status_code == 204
    assert options.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/", "/api/v2", "/api/v2/", "/api/v2/devices/", "/api/v2/devices/d1/", "/api/v2//devices", "/api/v2/nothing", "/api/v2/devices/d1/x", "/favicon.ico", "/api/v2/devices%2Fd1"]
)  # fmt: skip
async def test_unknown_paths(http: httpx.AsyncClient, path: str) -> None:
    assert_problem(await http.get(path), 404)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/merge-patch+json"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_wrong_content_types(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await http.post("/api/v2/devices", content=b"{}", headers=headers)
    assert_problem(answer, 415)


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_right_content_types(http: httpx.AsyncClient, kind: str) -> None:
    assert (await http.post("/api/v2/devices", content=b"{}", headers={"content-type": kind})).status_code == 201


async def test_merge_patch_is_a_patch(http: httpx.AsyncClient) -> None:
    await http.post("/api/v2/devices", json={"deviceId": "d1"})
    kind = {"content-type": "application/merge-patch+json"}
    assert (await http.patch("/api/v2/devices/d1", content=b'{"displayName":"x"}', headers=kind)).status_code == 200


async def test_a_body_that_is_too_large(http: httpx.AsyncClient, running: Running) -> None:
    answer = await http.post("/api/v2/devices", content=b" " * (MAX_BODY + 1), headers=JSON)
    assert_problem(answer, 413)
    at_the_limit = await http.post("/api/v2/devices", content=b"{}" + b" " * (MAX_BODY - 2), headers=JSON)
    assert at_the_limit.status_code == 201
    ten = await http.post("/api/v2/devices", content=b" " * 10_000_000, headers=JSON)
    assert_problem(ten, 413)
    assert len(running.devices.requests) == 1


async def test_a_chunked_body_is_refused_before_its_end(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 16384
            yield b" " * 16384

    try:
        answer = await http.post("/api/v2/devices", content=endless(), headers=JSON)
        assert_problem(answer, 413)
    except (httpx.WriteError, httpx.ReadError):  # the connection was closed on us, which ends it as well
        pass
    assert sent < 64 << 20


async def test_bodies_where_none_is_taken(http: httpx.AsyncClient, running: Running) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, "/api/v2/devices/d1", content=b"{}", headers=JSON)
        assert_problem(answer, 400)
        assert answer.json()["code"] == "BODY_UNEXPECTED"
    assert running.devices.requests == []


@pytest.mark.parametrize("value", ["soon", "250", "-1s", "0ms", "1h", "1.5s", "s", "9999999999s"])
async def test_request_timeouts_that_are_none(http: httpx.AsyncClient, value: str) -> None:
    answer = await http.get("/api/v2/devices/d1", headers={"request-timeout": value})
    assert_problem(answer, 400, "Request-Timeout")
