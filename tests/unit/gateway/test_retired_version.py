"""A gateway that serves a deprecated version beside the current one."""

import httpx
import pytest

from chassis.clock import SystemClock
from chassis.config import Config
from chassis.context import Caller
from chassis.telemetry.metrics import Metrics
from gateway.app import App
from gateway.module import build
from tests.unit.gateway.shapes import Shapes
from tests.unit.gateway.test_versions import RETIREMENT


class Anybody:
    def verify(self, authorization: str) -> Caller:
        return Caller("acme", authorization, frozenset(), 4e9)


@pytest.fixture
def app(shapes: Shapes) -> App:
    return build(
        Config(),
        clock=SystemClock(),
        verifier=Anybody(),
        metrics=Metrics(),
        upstreams={},
        random_bytes=bytes,
        schema=shapes.schema,
        codec=shapes.codec,
        retirements={"v1": RETIREMENT},
    ).app


async def test_every_answer_of_it_says_so(app: App) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        by_path = await client.put("/api/v1/shapes/s", json={})
        by_header = await client.put("/api/shapes/s", json={}, headers={"api-version": "v1"})
        current = await client.put("/api/shapes/s", json={})
        document = (await client.get("/openapi.json")).json()
    for answer in (by_path, by_header):
        assert answer.status_code == 501
        assert answer.headers["api-version"] == "v1"
        assert answer.headers["deprecation"] == "@1767225600"
        assert answer.headers["sunset"] == "Wed, 30 Jun 2027 00:00:00 GMT"
        assert answer.headers["link"] == '</api/v2/shapes/s>; rel="successor-version"'
    assert current.headers["api-version"] == "v2"
    assert "deprecation" not in current.headers
    assert document["paths"]["/api/v1/shapes/{name}"]["put"]["deprecated"] is True
