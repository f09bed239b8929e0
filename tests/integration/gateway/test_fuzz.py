"""Raw requests, drawn: whatever is sent, the answer is no server error and every one of ours is a problem document."""

import asyncio
import json
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bas.devices.v2 import devices_pb2
from tests.integration.gateway.conftest import TOKEN, Running, exchange, serve
from tests.integration.gateway.fake_devices import FakeDevices
from tests.support import patience
from tests.support.eventually import eventually

METHODS = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "PURGE", "get", "G\x00T"])
SEGMENT = st.sampled_from(
    ["devices", "devices:count", "devices:batchCreate", "d1", "d1:heartbeat", "telemetry", "users", "v2", "v1", "", "*"]
) | st.text(max_size=8).map(lambda text: quote(text, safe=""))
RAW = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
PATH = st.lists(SEGMENT | RAW, max_size=4).map(lambda parts: "/api/" + "/".join(parts)) | RAW.map(
    lambda text: "/" + text
)
NAMES = st.sampled_from(
    ["page_size", "pageSize", "filter", "updateMask", "device.labels[a]", "device_id", "labels[", "]"]
)
QUERY = st.lists(st.tuples(NAMES | RAW, RAW).map("=".join), max_size=3).map("&".join)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(
    [
        "deviceId",
        "device_id",
        "displayName",
        "labels",
        "status",
        "createTime",
        "readings",
        "devices",
        "t",
        "doubleValue",
    ]
)
TREE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=3)
)
BODY = st.none() | st.binary(max_size=60) | TREE.map(lambda tree: json.dumps(tree).encode())
NOISE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
HEADER = st.tuples(
    st.sampled_from(["if-match", "if-none-match", "idempotency-key", "request-timeout", "api-version", "content-type", "x-request-id", "traceparent", "origin", "content-encoding"]),
    NOISE | st.sampled_from(['"1"', 'W/"1"', "*", "250s", "0s", "v2", "v1", "application/json", "gzip"]),
)  # fmt: skip


def raw(method: str, target: str, headers: list[tuple[str, str]], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: x", f"authorization: {TOKEN}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if not any(name == "request-timeout" for name, _ in headers):
        lines += [f"{name}: {value}" for name, value in patience.HEADERS.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
        if not any(name == "content-type" for name, _ in headers):
            lines.append("content-type: application/json")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def test_no_request_is_a_server_error() -> None:
    with asyncio.Runner() as runner:
        context = serve(FakeDevices())
        running: Running = runner.run(context.__aenter__())
        statuses: dict[int, int] = {}

        @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
        @example("GET", "/api/v2/devices/d1", "", [], None)
        @example("GET", "/api/v2/devices/%", "", [], None)
        @given(METHODS, PATH, QUERY, st.lists(HEADER, max_size=3), BODY)
        def ask(method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes | None) -> None:
            running.devices.devices["d1"] = devices_pb2.Device(device_id="d1", etag="1")
            sent = raw(method, f"{path}?{query}" if query else path, headers, body)
            answer = runner.run(exchange(running.server.port, sent))
            status = int(answer.split(b" ", 2)[1])
            statuses[status] = statuses.get(status, 0) + 1
            assert status < 500 or status == 501, answer
            head, _, text = answer.partition(b"\r\n\r\n")
            if b"application/problem+json" in head and method != "HEAD":
                assert json.loads(text)["status"] == status

        async def reached() -> (
            bool
        ):  # the first look for the service ends while this loop stands still between examples
            return (
                b" 503 " not in (await exchange(running.server.port, raw("GET", "/api/v2/devices/d1", [], None)))[:20]
            )

        try:
            runner.run(eventually(reached, "the service is reached"))
            ask()
        finally:
            runner.run(context.__aexit__(None, None, None))
        assert {200, 400} <= statuses.keys()


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"POST /api/v2/devices HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"POST /api/v2/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"])  # fmt: skip
async def test_what_is_no_http_is_refused(junk: bytes) -> None:
    async with serve(FakeDevices()) as running:
        answer = await exchange(running.server.port, junk + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 4"), answer
        assert b"application/problem+json" in answer
        async with httpx.AsyncClient() as client:
            assert (await client.get(running.url + "/healthz")).status_code == 200
