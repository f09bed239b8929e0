"""What the devices service refuses, as a caller of REST meets it: which item, which field, in whose words."""

from typing import Any

from tests.support.platform import Platform

BAD = {"deviceId": "bad id", "labels": {"site\x07": "north"}}


async def test_items_are_refused_by_themselves_and_updates_by_their_fields(any_platform: Platform) -> None:
    async with any_platform.client() as caller:
        answer = await caller.post(
            "/api/devices:batchCreate", json={"devices": [{"deviceId": "d1"}, BAD, {"deviceId": "d3"}]}
        )
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        assert [next(iter(result)) for result in results] == ["device", "error", "device"]
        told = results[1]["error"]
        assert told["code"] == told["reason"] == "INVALID_ARGUMENT"
        assert [each["field"] for each in told["violations"]] == ["device_id", 'labels["site\\u0007"]']
        kept = (await caller.get("/api/devices", params={"orderBy": "device_id"})).json()["devices"]
        assert [device["deviceId"] for device in kept] == ["d1", "d3"]

        answer = await caller.post("/api/devices:batchCreate", json={"devices": [{} for _ in range(501)]})
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["errors"]] == ["devices"]
        assert (await caller.get("/api/devices:count")).json()["total"] == 2

        readings = {"door": {"boolValue": True}, "temperature": {"unit": "Cel"}}
        answer = await caller.post("/api/devices/d1/telemetry", json={"readings": readings})
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["errors"]] == ['readings["temperature"]']
        answer = await caller.get("/api/devices/d1/telemetry")
        assert answer.json().get("readings") == {}, answer.text

        answer = await caller.get("/api/devices", params={"filter": "labels:site", "orderBy": "display_name"})
        assert answer.status_code == 400
        (told,) = answer.json()["errors"]
        assert told["field"] == "orderBy"
        assert "create_time; create_time desc" in told["description"]
