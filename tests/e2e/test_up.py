"""The platform as a person meets it: `bas up`, a token, REST, and what happens when its parts are killed."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.platform import Platform, new_platform, runs
from tests.support.valkey import Valkey

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")

DEVICE = {"deviceId": "d1", "displayName": "Boiler 7", "type": "boiler"}


@pytest.fixture
async def up(fresh_platform: Platform) -> Platform:
    await fresh_platform.start()
    return fresh_platform


@pytest.fixture
async def caller(up: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with up.client() as client:
        yield client


def listens(address: str) -> bool:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


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

    status = up.bas("status", "--json")
    assert status.returncode == 0, status.stdout + status.stderr
    targets = json.loads(status.stdout)["targets"]
    assert {name: row["healthy"] for name, row in targets.items()} == {"gateway": True, "devices": True}
    operations = {row["operation"] for row in targets["devices"]["latencies"]}
    assert "DeviceService/GetDevice" in operations
    text = up.bas("status")
    assert "DeviceService/GetDevice" in text.stdout


async def test_sigterm_stops_everything_in_time_and_the_next_run_finds_the_devices(
    up: Platform, caller: httpx.AsyncClient
) -> None:
    assert (await caller.post("/api/devices", json=DEVICE)).status_code == 201
    parts, addresses = up.parts(), (up.gateway, up.devices)
    assert set(parts) == {"valkey", "devices", "gateway"}
    begun = time.monotonic()
    assert await up.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 5.0
    assert not any(map(runs, parts.values()))
    assert not any(map(listens, addresses))
    assert not [path for path in up.data.rglob("*") if path.is_socket() or path.suffix == ".pid"]
    assert "Traceback" not in up.err

    await up.start()
    async with up.client() as again:
        assert (await again.get("/api/devices/d1")).json()["displayName"] == "Boiler 7"
    assert up.bas("status").returncode == 0
    assert await up.stop(signal.SIGINT) == 0
    down = up.bas("status")
    assert down.returncode == 1
    assert "bas up" in down.stdout + down.stderr


async def test_many_signals_are_one_stop(up: Platform) -> None:
    up.process.send_signal(signal.SIGINT)
    up.process.send_signal(signal.SIGTERM)
    assert await up.stop(signal.SIGINT) == 0


async def test_a_stop_while_starting_leaves_nothing(fresh_platform: Platform) -> None:
    fresh_platform.spawn()
    await eventually(lambda: "devices" in fresh_platform.parts(), "the first parts", within=20)
    parts = fresh_platform.parts()
    assert await fresh_platform.stop() == 0
    assert not any(map(runs, parts.values()))


async def test_a_killed_service_is_503_until_it_is_back(up: Platform, caller: httpx.AsyncClient) -> None:
    await caller.post("/api/devices", json=DEVICE)
    killed = up.parts()["devices"]
    os.kill(killed, signal.SIGKILL)
    seen = []

    async def back() -> bool:
        answer = await caller.get("/api/devices/d1")
        seen.append(answer)
        return answer.status_code == 200

    await eventually(back, "the devices service again", within=30)
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
        assert (await caller.get("/api/devices/d1")).json()["displayName"] == f"name {number}"
        await asyncio.sleep(0.02)
    await eventually(lambda: up.parts().get("valkey", killed) != killed, "another valkey", within=20)
    assert (await caller.get("/api/devices/d1")).json()["displayName"] == "name 49"


async def test_a_killed_supervisor_takes_everything_with_it(up: Platform) -> None:
    addresses = (up.gateway, up.devices)
    await up.kill()
    assert not any(map(listens, addresses))
    await up.start()


async def test_a_platform_with_closed_health_and_a_cache_of_ones_own(
    fresh_platform: Platform, own_valkey: Valkey
) -> None:
    fresh_platform.settings |= {"BAS_GRPC_REFLECTION": "off", "BAS_REDIS_URL": own_valkey.url}
    await fresh_platform.start()
    assert set(fresh_platform.parts()) == {"devices", "gateway"}
    assert fresh_platform.bas("status").returncode == 0


async def test_a_stop_is_bounded_when_a_part_hangs(up: Platform) -> None:
    parts = up.parts()
    for pid in parts.values():
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert await up.stop() == 0
    assert time.monotonic() - begun < 5.0
    assert not any(map(runs, parts.values()))


async def test_a_second_one_on_the_same_folder_is_refused(up: Platform) -> None:
    second = up.bas("up", BAS_GATEWAY_PORT="0", BAS_DEVICES_PORT="0", BAS_DEVICES_METRICS_PORT="0")
    assert second.returncode == 2
    assert "BAS_DATA_DIR" in second.stderr
    async with up.client() as client:
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("setting", ["BAS_GATEWAY_PORT", "BAS_DEVICES_PORT", "BAS_DEVICES_METRICS_PORT"])
async def test_a_taken_port_is_refused_before_anything_starts(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with new_platform(**{setting: port}) as platform:
            platform.spawn()
            assert await platform.stop(0) == 2
            assert setting in platform.err
            assert port in platform.err
            assert "Traceback" not in platform.err
            assert list(platform.data.iterdir()) == []


async def test_a_data_folder_that_cannot_be_is_refused(fresh_platform: Platform) -> None:
    fresh_platform.data.touch()
    fresh_platform.spawn()
    assert await fresh_platform.stop(0) == 2
    assert "BAS_DATA_DIR" in fresh_platform.err


async def test_a_half_written_key_file_is_refused_and_kept(fresh_platform: Platform) -> None:
    fresh_platform.data.mkdir()
    keys = fresh_platform.data / "keys.json"
    keys.write_text('{"keys": [{"kty": "OK')
    fresh_platform.spawn()
    assert await fresh_platform.stop(0) == 2
    assert "BAS_AUTH_KEYS" in fresh_platform.err
    assert keys.read_text() == '{"keys": [{"kty": "OK'
    assert [path.name for path in fresh_platform.data.iterdir()] == ["keys.json"]


async def test_a_store_that_cannot_be_opened_stops_the_start(fresh_platform: Platform) -> None:
    fresh_platform.data.mkdir()
    (fresh_platform.data / "devices.db").write_bytes(b"this is no database, whatever its name says" * 100)
    fresh_platform.spawn()
    assert await fresh_platform.stop(0) == 2
    assert "devices.db" in fresh_platform.err
    assert "devices refused to start" in fresh_platform.err
    assert "Traceback" not in fresh_platform.err
