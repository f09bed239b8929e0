"""What a client sees when something behind or before the gateway fails."""

import asyncio
import json
import socket

import httpx
import pytest
from grpc_health.v1 import health_pb2

from bas.devices.v2 import devices_pb2
from chassis import errors
from chassis.clock import SystemClock
from chassis.config import Config, Deadline, Gateway
from chassis.context import Caller
from chassis.listen import PortTaken
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from gateway.server import GatewayServer
from tests.integration.gateway.conftest import TOKEN, OneToken, Running, counted_bytes, exchange, serve, upstream
from tests.integration.gateway.fake_devices import SERVICE, FakeDevices
from tests.support import patience
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = b'{"devices": [{"deviceId": "slow"}]}'
"""A request that waits, of the RPC with the longest deadline."""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (errors.Code.INVALID_ARGUMENT, 400),
        (errors.Code.FAILED_PRECONDITION, 400),
        (errors.Code.OUT_OF_RANGE, 400),
        (errors.Code.UNAUTHENTICATED, 401),
        (errors.Code.PERMISSION_DENIED, 403),
        (errors.Code.NOT_FOUND, 404),
        (errors.Code.ALREADY_EXISTS, 409),
        (errors.Code.ABORTED, 409),
        (errors.Code.RESOURCE_EXHAUSTED, 429),
        (errors.Code.CANCELLED, 499),
        (errors.Code.UNKNOWN, 500),
        (errors.Code.INTERNAL, 500),
        (errors.Code.DATA_LOSS, 500),
        (errors.Code.UNIMPLEMENTED, 501),
        (errors.Code.UNAVAILABLE, 503),
        (errors.Code.DEADLINE_EXCEEDED, 504),
    ],
)
async def test_every_code_has_its_status(
    running: Running, http: httpx.AsyncClient, code: errors.Code, status: int
) -> None:
    running.devices.fail = errors.ApiError(code, "SOME_REASON", "What happened.", retry_after=2.2)
    answer = await http.get("/api/v2/devices/d1")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:bas:problem:SOME_REASON",
        "title": code.title,
        "status": status,
        "detail": "What happened.",
        "instance": answer.headers["x-request-id"],
        "code": "SOME_REASON",
    }
    assert answer.headers["retry-after"] == "3"


async def test_details_pass_through_in_json_names(running: Running, http: httpx.AsyncClient) -> None:
    running.devices.fail = errors.invalid_argument(
        errors.Violation("device.display_name", "Too long."), errors.Violation('device.labels["a_b"]', "Too short.")
    )
    document = (await http.post("/api/v2/devices", json={})).json()
    assert document["detail"] == "displayName: Too long."
    assert document["errors"] == [
        {"field": "displayName", "description": "Too long."},
        {"field": 'labels["a_b"]', "description": "Too short."},
    ]
    running.devices.fail = errors.permission_denied("devices:write")
    assert (await http.post("/api/v2/devices", json={})).json()["metadata"] == {"scope": "devices:write"}


async def test_a_deployment_without_sessions_knows_no_session(running: Running) -> None:
    async with running.client() as anonymous:
        del anonymous.headers["authorization"]
        answer = await anonymous.get("/api/devices", headers={"authorization": "Bearer bas_s1_secret"})
        assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_INVALID")
        answer = await anonymous.get("/api/devices", headers={"cookie": "bas_session=bas_s1_secret"})
        assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_MISSING")
        answer = await anonymous.post("/api/sessions:cookie", json={"token": "bas_s1_secret"})
        assert answer.status_code == 501
        assert (await anonymous.delete("/api/sessions:cookie")).status_code == 204


async def test_no_credential(running: Running, http: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/api/v2/devices/d1"), ("GET", "/api/v2/nothing"), ("PUT", "/api/devices")):
        async with httpx.AsyncClient(base_url=running.url, timeout=patience.CLIENT) as anonymous:
            answer = await anonymous.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "TOKEN_MISSING"


@pytest.mark.parametrize("credential", ["Bearer bad", "Bearer bas_s1_secret", "Basic dTpw", "Bearer"])
async def test_bad_credentials(http: httpx.AsyncClient, credential: str) -> None:
    answer = await http.get("/api/v2/devices/d1", headers={"authorization": credential})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json()["code"] == "TOKEN_INVALID"


async def test_services_that_are_not_deployed(http: httpx.AsyncClient) -> None:
    for path in ("/api/v2/users/u1", "/api/v2/audit/entries", "/api/v2/events/stream"):
        answer = await http.get(path)
        assert answer.status_code == 501
        assert "not part of this deployment" in answer.json()["detail"]


async def test_methods_with_a_session_token_need_no_caller_token(running: Running) -> None:
    async with httpx.AsyncClient(base_url=running.url, timeout=patience.CLIENT) as anonymous:
        answer = await anonymous.post("/api/v2/sessions:authenticate", json={"token": "bas_a_b"})
        assert answer.status_code == 501
        wrong = await anonymous.post(
            "/api/v2/sessions:authenticate", json={"token": "bas_a_b"}, headers={"authorization": "Bearer bad"}
        )
        assert wrong.status_code == 401


@pytest.mark.parametrize("stretch", [1.0, 20.0])
async def test_deadlines(stretch: float) -> None:
    async with serve(FakeDevices(), deadline=Deadline(stretch=stretch)) as running, running.client() as client:
        devices = running.devices
        devices.devices["d1"] = devices_pb2.Device(device_id="d1")
        for asked, least, most in (("50s", 0.2, 1.5 * stretch), ("100ms", 0.0, 0.1), ("", 0.0, 0.15 * stretch)):
            client.headers["request-timeout"] = asked
            devices.seconds_left.clear()

            async def arrives() -> bool:  # a busy machine may need longer than that for the way there
                await client.get("/api/v2/devices/d1")
                return bool(devices.seconds_left)

            await eventually(arrives, "the call arrives")
            assert least < devices.seconds_left[-1] <= most * 1.1  # gRPC rounds up on the wire
        late = await client.get("/api/v2/devices/slow", headers={"request-timeout": "50ms"})
        assert late.status_code == 504
        assert late.json()["code"] == "DEADLINE_EXCEEDED"


async def test_a_client_that_leaves_cancels_the_call(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
    head = (
        f"POST /api/v2/devices:batchCreate HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\nrequest-timeout: 50s\r\n"
        f"content-type: application/json\r\ncontent-length: {len(SLOW)}\r\n\r\n"
    )
    writer.write(head.encode() + SLOW)
    async with asyncio.timeout(30):
        await running.devices.waiting.wait()
        writer.close()
        await writer.wait_closed()
        await running.devices.cancelled.wait()
    del reader
    text = 'status="499"'
    async with running.client() as client:
        assert text in (await client.get("/metrics")).text


async def test_open_pages(running: Running) -> None:
    async with httpx.AsyncClient(base_url=running.url, timeout=patience.CLIENT) as anonymous:
        alive = await anonymous.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        assert (await anonymous.get("/docs")).text.startswith("<!doctype html>")
        assert (await anonymous.get("/openapi.json")).json()["openapi"] == "3.1.0"
        assert (await anonymous.head("/healthz")).status_code == 200


async def test_a_service_that_goes_and_comes_back() -> None:
    async with serve(FakeDevices()) as running, running.client() as client:
        running.devices.devices["d1"] = devices_pb2.Device(device_id="d1")

        async def status(path: str, wanted: int) -> bool:
            return (await client.get(path)).status_code == wanted

        await eventually(lambda: status("/readyz", 200), "ready")
        await running.device_server.stop()
        await eventually(lambda: status("/readyz", 503), "not ready any more")
        assert (await client.get("/readyz")).json() == {"status": "not ready", "targets": {"devices": "not ready"}}
        answer = await client.get("/api/v2/devices/d1")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "127.0.0.1" not in answer.text
        assert (await client.get("/healthz")).status_code == 200
        await running.device_server.start()
        await eventually(lambda: status("/readyz", 200), "ready again")
        await eventually(lambda: status("/api/v2/devices/d1", 200), "served again")
        await running.device_server.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        await eventually(lambda: status("/readyz", 503), "not serving")


async def test_a_slow_body_is_given_up() -> None:
    async with serve(FakeDevices(), body_seconds=0.1) as running:
        head = (
            f"POST /api/v2/devices HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        answer = await exchange(running.server.port, head.encode())
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("where", ["url", "header", "headers"])
async def test_a_head_that_is_too_large(running: Running, where: str) -> None:
    long = "x" * 40_000
    target, headers = "/healthz", ""
    if where == "url":
        target += "?" + long
    elif where == "header":
        headers = f"a: {long}\r\n"
    else:
        headers = "".join(f"a{index}: {'x' * 90}\r\n" for index in range(400))
    sent = f"GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n"
    answer = await exchange(running.server.port, sent.encode())
    assert answer.startswith(b"HTTP/1.1 431 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert json.loads(body)["status"] == 431


async def test_requests_in_progress_end_before_the_gateway_does() -> None:
    async with serve(FakeDevices()) as running, running.client() as client:
        headers = {"content-type": "application/json"}
        pending = asyncio.create_task(client.post("/api/v2/devices:batchCreate", content=SLOW, headers=headers))
        await running.devices.waiting.wait()
        stopping = asyncio.create_task(running.server.stop())
        await asyncio.sleep(0)
        running.devices.release.set()
        assert (await pending).status_code == 200
        await stopping


async def started(verifier: OneToken) -> GatewayServer:
    """A gateway before a device service that is not there."""
    config = Config(gateway=Gateway(port=0))
    gateway = build(
        config,
        clock=SystemClock(),
        verifier=verifier,
        metrics=Metrics(),
        upstreams={"devices": upstream(1, Metrics())},
        random_bytes=counted_bytes(),
    )
    server = GatewayServer(config.gateway)
    await server.start(gateway)
    return server


async def test_a_taken_port_is_known_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortTaken, match="BAS_GATEWAY_PORT"):
            GatewayServer(Gateway(port=other.getsockname()[1]))


async def test_a_service_that_was_never_there() -> None:
    server = await started(OneToken())
    async with httpx.AsyncClient(headers={"authorization": TOKEN}, timeout=patience.CLIENT) as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/api/v2/devices")
    await server.stop()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


async def test_a_bug_is_a_500_that_tells_nothing() -> None:
    class Broken(OneToken):
        def verify(self, authorization: str) -> Caller:
            raise RuntimeError("secret of the inside")

    server = await started(Broken())
    async with httpx.AsyncClient(timeout=patience.CLIENT) as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/api/v2/devices")
    await server.stop()
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "secret" not in answer.text


async def test_beyond_its_connections_the_gateway_says_so() -> None:
    async with serve(FakeDevices(), max_connections=1) as running, running.client() as client:
        assert (await client.get("/healthz")).status_code == 200
        refused = await exchange(running.server.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert b"application/problem+json" in head
        assert json.loads(body)["code"] == "CONNECTIONS_EXHAUSTED"
        assert (await client.get("/healthz")).status_code == 200, "who was there stays"
