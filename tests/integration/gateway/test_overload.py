"""What the gateway refuses when it has more to do than it can. No service is deployed: what is not refused is 501."""

import os

import httpx

from chassis.clock import SystemClock
from chassis.config import Config, Shed
from chassis.resilience.shedding import FLOOR, Shedder
from chassis.telemetry.metrics import Metrics
from gateway.module import build
from tests.integration.gateway.conftest import TOKEN, OneToken


async def test_an_overloaded_gateway_says_when_to_come_back_and_answers_health() -> None:
    load = Shedder(Shed(), 1000, Metrics(), lambda: 0.5)
    app = build(
        Config(),
        clock=SystemClock(),
        verifier=OneToken(),
        metrics=Metrics(),
        upstreams={},
        random_bytes=os.urandom,
        load=load,
    ).app
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers={"authorization": TOKEN}
    ) as client:

        async def status(method: str = "GET", path: str = "/api/v2/devices/d1") -> int:
            return (await client.request(method, path)).status_code

        assert await status() == 501
        load.in_progress = 400
        load.sample(1.0, 100.0)
        assert load.limit == 320
        refused = await client.get("/api/v2/devices/d1")
        assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
        assert await status(path="/healthz") == 200
        load.in_progress = 200
        assert (await status(), await status("DELETE")) == (501, 503)
        assert load.in_progress == 200
        load.in_progress = FLOOR - 1
        assert (await status(), await status("DELETE")) == (501, 501)
