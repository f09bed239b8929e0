"""Who was refused, in the audit log of a whole platform."""

from tests.support.eventually import eventually
from tests.support.platform import new_platform

LIST = "bas.devices.v2.DeviceService/ListDevices"


async def test_who_was_refused_is_in_the_log() -> None:
    """A scope that is lacking, at a service and at the log itself; a token that is over; a session that is over."""
    async with new_platform(BAS_AUDIT_REFUSALS_INTERVAL="1s", BAS_AUTH_LEEWAY="0s") as up:
        await up.start()
        async with up.client("refusals") as caller:
            weak = {"authorization": f"Bearer {up.token('refusals', '--scope', 'users:read', '--subject', 'eve')}"}
            short = {"authorization": f"Bearer {up.token('refusals', '--ttl', '1s', '--subject', 'late')}"}
            for path in ("devices", "devices", "audit/entries"):
                assert (await caller.get(f"/api/{path}", headers=weak)).status_code == 403
            made = (await caller.post("/api/sessions", json={"userId": "ada", "scopes": ["devices:read"]})).json()
            ended = await caller.delete(f"/api/sessions/{made['session']['sessionId']}")
            assert ended.is_success, ended.text
            over = {"authorization": f"Bearer {made['token']}"}
            assert (await caller.get("/api/devices", headers=over)).json()["code"] == "SESSION_INVALID"

            async def expired() -> bool:
                return (await caller.get("/api/nothing", headers=short)).status_code == 401  # asks no service

            await eventually(expired, "the end of a token", every=0.5)
            assert (await caller.get("/api/devices", headers={"authorization": "Bearer a.b.c"})).status_code == 401

            expected = {
                ("eve", "SCOPE_MISSING", LIST, "devices"): 2,
                ("eve", "SCOPE_MISSING", "bas.audit.v2.AuditService/ListEntries", "audit"): 1,
                ("ada", "SESSION_ENDED", "bas.sessions.v2.SessionService/AuthenticateSession", "sessions"): 1,
                ("late", "TOKEN_EXPIRED", "", "gateway"): 1,
            }
            found: dict[tuple[str, str, str, str], int] = {}

            async def all_there() -> bool:
                found.clear()
                page = await caller.get("/api/audit/entries", params={"action": "access.refused", "pageSize": 100})
                for each in page.json()["entries"]:
                    assert each["outcome"] == "OUTCOME_DENIED"
                    more = each["metadata"]
                    key = each["actor"]["subject"], each["reason"], each["resource"]["id"], more["recordedBy"]
                    # One entry, or two if a window has ended between the calls.
                    found[key] = found.get(key, 0) + int(more["count"])
                return sum(found.values()) >= sum(expected.values())

            await eventually(all_there, "an entry for each kind of refusal", within=60.0, every=0.2)
            assert found == expected
