"""Resources over HTTP: statuses, headers, etags, masks and idempotency, as clients meet them."""

import re

import httpx
import pytest

from bas.devices.v2 import devices_pb2
from tests.integration.gateway.conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def boiler(running: Running) -> devices_pb2.Device:
    device = devices_pb2.Device(device_id="d1", display_name="Boiler 7", type="boiler", etag="5")
    running.devices.devices["d1"] = device
    return device


async def test_get_answers_canonical_json(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    boiler.status = devices_pb2.DEVICE_STATUS_ONLINE
    boiler.create_time.seconds = 1_700_000_000
    answer = await http.get("/api/v2/devices/d1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "deviceId": "d1",
        "displayName": "Boiler 7",
        "type": "boiler",
        "labels": {},
        "metadata": {},
        "status": "DEVICE_STATUS_ONLINE",
        "statusReason": "",
        "createTime": "2023-11-14T22:13:20Z",
        "etag": "5",
    }


async def test_the_unversioned_path_is_the_same_resource(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    versioned, plain = await http.get("/api/v2/devices/d1"), await http.get("/api/devices/d1")
    assert plain.json() == versioned.json()
    assert plain.headers["api-version"] == versioned.headers["api-version"] == "v2"
    named = await http.get("/api/devices/d1", headers={"api-version": "v2"})
    assert named.status_code == 200


async def test_an_unknown_version_is_refused_naming_those_there_are(http: httpx.AsyncClient) -> None:
    by_header = await http.get("/api/devices/d1", headers={"api-version": "v9"})
    assert by_header.status_code == 400
    assert by_header.json()["code"] == "API_VERSION_UNKNOWN"
    assert "v2" in by_header.json()["detail"]
    by_path = await http.get("/api/v9/devices/d1")
    assert by_path.status_code == 404
    assert "v2" in by_path.json()["detail"]


async def test_create_is_201_with_location(running: Running, http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/v2/devices", json={"deviceId": "d 1", "display_name": "Boiler 7"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v2/devices/d%201"
    assert answer.headers["etag"] == '"1"'
    assert running.devices.devices["d 1"].display_name == "Boiler 7"
    assert (await http.get(answer.headers["location"])).status_code == 200


async def test_location_keeps_the_unversioned_path(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/devices", json={})
    assert answer.headers["location"] == "/api/devices/made"


async def test_delete_is_204_without_body(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    answer = await http.delete("/api/v2/devices/d1")
    assert answer.status_code == 204
    assert answer.content == b""
    assert "content-length" not in answer.headers


async def test_head_follows_get(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    got, head = await http.get("/api/v2/devices/d1"), await http.head("/api/v2/devices/d1")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["etag"] == got.headers["etag"]
    assert (await http.head("/api/v2/devices/none")).status_code == 404


async def test_if_none_match(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    for value in ('"5"', 'W/"5"', '"4", "5"', "*"):
        answer = await http.get("/api/v2/devices/d1", headers={"if-none-match": value})
        assert answer.status_code == 304, value
        assert answer.content == b""
        assert answer.headers["etag"] == '"5"'
        assert answer.headers["vary"] == "Authorization, Cookie, API-Version"
    changed = await http.get("/api/v2/devices/d1", headers={"if-none-match": '"4"'})
    assert changed.status_code == 200


async def test_cache_control(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    assert (await http.get("/api/v2/devices/d1")).headers["cache-control"] == "private, no-cache"
    assert (await http.get("/api/v2/devices")).headers["cache-control"] == "no-store"
    assert (await http.get("/api/v2/devices/none")).headers["cache-control"] == "no-store"


async def test_the_mask_is_what_the_body_holds(
    running: Running, http: httpx.AsyncClient, boiler: devices_pb2.Device
) -> None:
    body = {"displayName": "New", "labels": None, "etag": "5", "deviceId": "d1", "status": "DEVICE_STATUS_ONLINE"}
    answer = await http.patch("/api/v2/devices/d1", json=body)
    assert answer.status_code == 200, answer.text
    request = running.devices.requests[-1]
    assert list(request.update_mask.paths) == ["display_name", "labels"]
    assert request.device.etag == "5"
    assert boiler.display_name == "New"
    assert boiler.type == "boiler"


@pytest.mark.parametrize("name", ["update_mask", "updateMask"])
async def test_a_mask_that_is_given_stays(
    running: Running, http: httpx.AsyncClient, boiler: devices_pb2.Device, name: str
) -> None:
    answer = await http.patch(f"/api/v2/devices/d1?{name}=type,display_name", json={"displayName": "New"})
    assert answer.status_code == 200, answer.text
    assert list(running.devices.requests[-1].update_mask.paths) == ["type", "display_name"]
    assert boiler.type == ""


async def test_if_match(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    stale = await http.patch("/api/v2/devices/d1", json={"displayName": "x"}, headers={"if-match": '"4"'})
    assert stale.status_code == 412
    assert stale.json()["code"] == "ETAG_MISMATCH"
    weak = await http.delete("/api/v2/devices/d1", headers={"if-match": 'W/"5"'})
    assert weak.status_code == 412
    good = await http.patch("/api/v2/devices/d1", json={"displayName": "x"}, headers={"if-match": '"5"'})
    assert good.status_code == 200
    gone = await http.delete("/api/v2/devices/d1", headers={"if-match": good.headers["etag"]})
    assert gone.status_code == 204


async def test_if_match_star_demands_no_version(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    answer = await http.patch("/api/v2/devices/d1", json={"displayName": "x"}, headers={"if-match": "*"})
    assert answer.status_code == 200


async def test_a_stale_etag_in_the_body_is_409(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    answer = await http.patch("/api/v2/devices/d1", json={"displayName": "x", "etag": "4"})
    assert answer.status_code == 409
    assert answer.json()["code"] == "ETAG_MISMATCH"


async def test_two_etags_that_differ(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    answer = await http.patch("/api/v2/devices/d1", json={"etag": "4"}, headers={"if-match": '"5"'})
    assert answer.status_code == 400


@pytest.mark.parametrize("value", ["5", '"5', '"4", "5"', '""'])
async def test_an_if_match_that_is_no_etag(http: httpx.AsyncClient, boiler: devices_pb2.Device, value: str) -> None:
    answer = await http.delete("/api/v2/devices/d1", headers={"if-match": value})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "If-Match"


@pytest.mark.parametrize("sent", ["k-1", '"k-1"'])
async def test_idempotency_key_is_the_request_id_of_the_call(
    running: Running, http: httpx.AsyncClient, sent: str
) -> None:
    answer = await http.post("/api/v2/devices", json={"deviceId": "d1"}, headers={"idempotency-key": sent})
    assert answer.status_code == 201
    assert running.devices.requests[-1].request_id == "k-1"
    same = await http.post("/api/v2/devices?request_id=k-1", json={}, headers={"idempotency-key": sent})
    assert same.status_code == 201
    other = await http.post("/api/v2/devices?request_id=k-2", json={}, headers={"idempotency-key": sent})
    assert other.status_code == 400


async def test_custom_verbs(running: Running, http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    assert (await http.get("/api/v2/devices:count")).json()["total"] == 1
    beat = await http.post("/api/v2/devices/d1:heartbeat", json={"bootId": "b", "sequence": "3"})
    assert beat.status_code == 200
    assert (running.devices.requests[-1].device_id, running.devices.requests[-1].sequence) == ("d1", 3)
    without_body = await http.post("/api/v2/devices/d1:heartbeat")
    assert without_body.status_code == 200


async def test_an_encoded_slash_is_part_of_the_id(running: Running, http: httpx.AsyncClient) -> None:
    await http.get("/api/v2/devices/a%2Fb%3A%20c")
    assert running.devices.requests[-1].device_id == "a/b: c"


async def test_request_id(http: httpx.AsyncClient, running: Running, boiler: devices_pb2.Device) -> None:
    sent = await http.get("/api/v2/devices/d1", headers={"x-request-id": "abc-1"})
    assert sent.headers["x-request-id"] == "abc-1"
    assert running.devices.metadata[-1]["x-request-id"] == "abc-1"
    for strange in ("x" * 129, "a b", "a<script>"):
        made = await http.get("/api/v2/devices/none", headers={"x-request-id": strange})
        assert made.headers["x-request-id"] != strange
        assert made.json()["instance"] == made.headers["x-request-id"]


async def test_what_goes_along_with_the_call(
    http: httpx.AsyncClient, running: Running, boiler: devices_pb2.Device
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await http.get("/api/v2/devices/d1", headers={"traceparent": trace})
    metadata = running.devices.metadata[-1]
    assert metadata["traceparent"] == trace
    assert metadata["authorization"] == "Bearer good"


async def test_metrics_name_routes_not_paths(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    await http.get("/api/v2/devices/d1")
    await http.get("/api/nothing/here")
    text = (await http.get("/metrics", headers={"authorization": ""})).text
    assert 'bas_gateway_requests_total{method="GET",route="/api/v2/devices/{device_id}",status="200"}' in text
    assert 'route="unrouted",status="404"' in text
    assert "bas_gateway_seconds_bucket" in text
    assert "nothing" not in text


async def test_cors(http: httpx.AsyncClient, boiler: devices_pb2.Device) -> None:
    origin = {"origin": "https://app.example"}
    simple = await http.get("/api/v2/devices/d1", headers=origin)
    assert simple.headers["access-control-allow-origin"] == "https://app.example"
    other = await http.get("/api/v2/devices/d1", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    asked = origin | {"access-control-request-method": "PATCH", "authorization": ""}
    preflight = await http.options("/api/v2/devices/d1", headers=asked)
    assert preflight.status_code == 204
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


async def test_a_trace_begins_here_unless_one_came(running: Running, http: httpx.AsyncClient) -> None:
    given, state = "00-" + "a" * 32 + "-" + "b" * 16 + "-01", {"tracestate": "vendor=1"}
    wrong = ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", "ff" + given[2:], given.upper(), given + "-x")
    made = set()
    for sent in ("", *wrong):
        await http.get("/api/v2/devices/d1", headers=({"traceparent": sent} if sent else {}) | state)
        metadata = running.devices.metadata[-1]
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", str(metadata["traceparent"]))
        assert "tracestate" not in metadata, "the state of a trace that was not taken"
        made.add(str(metadata["traceparent"]))
    assert len(made) == 1 + len(wrong)
    await http.get("/api/v2/devices/d1", headers={"traceparent": given} | state)
    assert running.devices.metadata[-1]["traceparent"] == given
    assert running.devices.metadata[-1]["tracestate"] == "vendor=1"
