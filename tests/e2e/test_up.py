"""`bas up` itself, its data folder and its ports. What callers are promised, on each store: test_platform.py."""

import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.targets import PRESENT
from tests.support.eventually import eventually
from tests.support.platform import Platform, listens, new_platform, runs
from tests.support.stores import is_stand_in
from tests.support.valkey import Valkey

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")


@pytest.fixture
async def up(fresh_platform: Platform) -> Platform:
    await fresh_platform.start()
    return fresh_platform


async def test_many_signals_are_one_stop(up: Platform) -> None:
    up.process.send_signal(signal.SIGINT)
    up.process.send_signal(signal.SIGTERM)
    assert await up.stop(signal.SIGINT) == 0


async def test_a_stop_while_starting_leaves_nothing(fresh_platform: Platform) -> None:
    fresh_platform.spawn()
    await eventually(lambda: "devices" in fresh_platform.parts(), "the first parts")
    parts = fresh_platform.parts()
    assert await fresh_platform.stop() == 0
    assert not any(map(runs, parts.values()))


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
    assert set(fresh_platform.parts()) == set(PRESENT)
    await fresh_platform.healthy()


async def test_a_stop_is_bounded_when_a_part_hangs(up: Platform) -> None:
    parts = up.parts()
    for pid in parts.values():
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert await up.stop() == 0
    assert time.monotonic() - begun < 30.0
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


async def test_a_database_that_is_not_there_stops_the_start(firestore_settings: Mapping[str, str]) -> None:
    if not is_stand_in():
        pytest.skip("an emulator has every database")
    settings = {**firestore_settings, "BAS_STORE_URL": "firestore://bas-test/not-there"}
    async with new_platform(**settings) as platform:
        platform.spawn()
        assert await platform.stop(0) == 2
        assert "gcloud firestore databases create" in platform.err
        assert "refused to start" in platform.err
        assert "Traceback" not in platform.err


async def test_a_store_that_cannot_be_opened_stops_the_start(fresh_platform: Platform) -> None:
    fresh_platform.data.mkdir()
    (fresh_platform.data / "devices.db").write_bytes(b"this is no database, whatever its name says" * 100)
    fresh_platform.spawn()
    assert await fresh_platform.stop(0) == 2
    assert "devices.db" in fresh_platform.err
    assert "devices refused to start" in fresh_platform.err
    assert "Traceback" not in fresh_platform.err
