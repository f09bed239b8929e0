"""The platform as its callers meet it, on each store: a token, REST, and what happens when its parts are killed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from launcher.targets import PRESENT, SERVICES
from tests.support.eventually import eventually
from tests.support.platform import Platform, listens, runs

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")

DEVICE = {"deviceId": "d1", "displayName": "Boiler 7", "type": "boiler"}


@pytest.fixture
async def up(any_platform: Platform) -> Platform:
    return any_platform


@pytest.fixture
async def caller(up: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with up.client() as client:
        yield client


async def test_the_tour(up: Platform, caller: httpx.AsyncClient) -> None:
    created = await caller.post("/api/devices", json=DEVICE)
    assert created.status_code == 201, created.text
    read = await caller.get("/api/devices/d1")
    assert read.json()["displayName"] == "Boiler 7"
    listed = await caller.get("/api/devices")
    assert [device["deviceId"] for device in listed.json()["devices"]] == ["d1"]
    assert (await caller.get("/api/devices:count")).status_code == 200
    changed = await caller.patch(
        "/api/devices/d1", json={"displayName": "Boiler 7b"}, headers={"If-Match": read.headers["etag"]}
    )
    assert changed.json()["displayName"] == "Boiler 7b"
    assert (await caller.delete("/api/devices/d1")).status_code == 204
    assert (await caller.get("/api/devices/d1")).status_code == 404
    async with up.client("umbra") as other:
        assert (await other.get("/api/devices")).json()["devices"] == []

    targets = json.loads(await up.healthy("--json", telling="DeviceService/GetDevice"))["targets"]
    assert {name: row["healthy"] for name, row in targets.items()} == dict.fromkeys(PRESENT, True)
    operations = {row["operation"] for row in targets["devices"]["latencies"]}
    assert "DeviceService/GetDevice" in operations
    await up.healthy(telling="DeviceService/GetDevice")
    on_files = up.settings.get("BAS_STORE_URL", "").partition(":")[0] != "firestore"
    assert {path.stem for path in up.data.glob("*.db")} == (set(SERVICES) if on_files else set())


async def test_sigterm_stops_everything_in_time_and_the_next_run_finds_the_devices(
    up: Platform, caller: httpx.AsyncClient
) -> None:
    assert (await caller.post("/api/devices", json=DEVICE)).status_code == 201
    parts, addresses = up.parts(), (up.gateway, up.devices)
    assert set(parts) == {"valkey", *PRESENT}
    begun = time.monotonic()
    assert await up.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 30.0
    assert not any(map(runs, parts.values()))
    assert not any(map(listens, addresses))
    assert not [path for path in up.data.rglob("*") if path.is_socket() or path.suffix == ".pid"]
    assert "Traceback" not in up.err, up.err

    await up.start()
    async with up.client() as again:
        assert (await again.get("/api/devices/d1")).json()["displayName"] == "Boiler 7"
    await up.healthy()
    assert await up.stop(signal.SIGINT) == 0
    down = up.bas("status")
    assert down.returncode == 1
    assert "bas up" in down.stdout + down.stderr


async def test_a_killed_service_is_503_until_it_is_back(up: Platform, caller: httpx.AsyncClient) -> None:
    await caller.post("/api/devices", json=DEVICE)
    killed = up.parts()["devices"]
    os.kill(killed, signal.SIGKILL)
    seen = []

    async def back() -> bool:
        answer = await caller.get("/api/devices/d1")
        seen.append(answer)
        return answer.status_code == 200

    await eventually(back, "the devices service again")
    refusals = [answer for answer in seen if answer.status_code != 200]
    assert refusals, "the service was back before anybody noticed"
    for answer in refusals:
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert int(answer.headers["retry-after"]) >= 1
    assert up.parts()["devices"] != killed
    assert "devices was ended by signal 9; starting it again" in up.err


async def test_a_killed_valkey_changes_no_answer(up: Platform, caller: httpx.AsyncClient) -> None:
    await caller.post("/api/devices", json=DEVICE)
    killed = up.parts()["valkey"]
    os.kill(killed, signal.SIGKILL)
    for number in range(50):
        answer = await caller.get("/api/devices/d1")
        assert answer.status_code == 200, answer.text
        renamed = await caller.patch("/api/devices/d1", json={"displayName": f"name {number}"})
        assert renamed.status_code == 200, renamed.text
        answer = await caller.get("/api/devices/d1")
        assert answer.status_code == 200, answer.text
        assert answer.json()["displayName"] == f"name {number}"
        await asyncio.sleep(0.02)
    await eventually(lambda: up.parts().get("valkey", killed) != killed, "another valkey")
    assert (await caller.get("/api/devices/d1")).json()["displayName"] == "name 49"
