"""The thinnest way through: a device read over real HTTP and real gRPC."""

import httpx

from bas.devices.v2 import devices_pb2
from tests.integration.gateway.conftest import Running


async def test_get_device(running: Running, http: httpx.AsyncClient) -> None:
    running.devices.devices["d1"] = devices_pb2.Device(device_id="d1", display_name="Boiler 7", etag="5")
    answer = await http.get("/api/v2/devices/d1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["displayName"] == "Boiler 7"
    assert answer.headers["etag"] == '"5"'
    assert answer.headers["api-version"] == "v2"
    missing = await http.get("/api/devices/none")
    assert missing.status_code == 404
    assert missing.json()["code"] == "DEVICE_NOT_FOUND"
