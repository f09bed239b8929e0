"""What callers do over REST is in the tenant's events: each change once, in order for each subject, and nothing else."""

from typing import Any

import httpx

from tests.support.eventually import eventually
from tests.support.platform import Platform

WITHIN = 90.0


async def done(caller: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    answer = await caller.request(method, f"/api/{path}", **options)
    assert answer.is_success, f"{method} {path}: {answer.text}"
    return answer.json() if answer.content else None


async def events(caller: httpx.AsyncClient) -> list[dict[str, Any]]:
    """All of the tenant's, oldest first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await done(caller, "GET", "events", params={"cursor": cursor} if cursor else {})
        if not page["events"]:
            return found
        found += [logged["event"] for logged in page["events"]]
        cursor = page["nextCursor"]


def by_subject(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    subjects: dict[str, list[str]] = {}
    for event in found:
        subjects.setdefault(event["subject"], []).append(event["type"])
    return subjects


async def test_what_is_done_over_rest_is_told_once_and_in_order(any_platform: Platform) -> None:
    async with any_platform.client() as caller, any_platform.client("other") as stranger:
        await done(caller, "POST", "devices", json={"deviceId": "d1", "displayName": "Boiler"})
        await done(caller, "PATCH", "devices/d1", json={"displayName": "Boiler 7"})
        await done(caller, "POST", "devices/d1:heartbeat", json={})
        await done(caller, "DELETE", "devices/d1")
        await done(caller, "POST", "users", json={"userId": "ada", "email": "ada@example.com"})
        made = await done(caller, "POST", "sessions", json={"userId": "ada"})
        revoked = made["session"]["sessionId"]
        await done(caller, "DELETE", f"sessions/{revoked}", params={"reason": "lost phone"})
        left = (await done(caller, "POST", "sessions", json={"userId": "ada"}))["session"]["sessionId"]
        await done(caller, "DELETE", "users/ada")
        expected = {
            "devices/d1": ["device.created", "device.updated", "device.online", "device.deleted"],
            "users/ada": ["user.created", "user.deleted"],
            f"sessions/{revoked}": ["session.created", "session.revoked"],
            f"sessions/{left}": ["session.created", "session.revoked"],
        }

        async def told() -> bool:
            return sum(map(len, expected.values())) <= len(await events(caller))

        await eventually(told, "an event for each change", within=WITHIN, every=0.1)
        found = await events(caller)
        assert by_subject(found) == expected
        assert {event["source"] for event in found} == {"/bas/devices", "/bas/users", "/bas/sessions"}
        assert len({event["id"] for event in found}) == len(found)
        assert await events(stranger) == []
        text = str(found)
        assert "ada@example.com" not in text
        assert made["token"].rpartition("_")[2] not in text
