"""The audit log of a whole platform: appended, exported and proven through the gateway, verified by what is not of it."""

from launcher.verifier.check import check
from launcher.verifier.note import parse_key
from tests.support.eventually import eventually
from tests.support.platform import Platform


async def test_an_export_through_the_gateway_is_verified_offline(any_platform: Platform) -> None:
    async with any_platform.client("audited") as client:
        entries = [
            {
                "idempotencyKey": f"k{number}",
                "actor": {"subject": "ann", "ip": "::1"},
                "action": "device.created",
                "resource": {"type": "device", "id": "d1"},
                "outcome": "OUTCOME_SUCCESS",
                "reason": 'as "usual" \u2013 \\',
                "metadata": {"ключ": "1", "b": ""} if number % 2 else {},
            }
            for number in range(60)
        ]
        done = await client.post(
            "/api/audit/entries:batchAppend",
            json={"entries": entries, "acknowledgement": "ACKNOWLEDGEMENT_INTEGRATED"},
        )
        assert done.status_code == 200, done.text
        one = done.json()["results"][7]["appended"]
        assert (await client.post("/api/audit/entries", json=entries[7])).json()["entry"]["entryId"] == one["entry"][
            "entryId"
        ]
        other = await client.post("/api/audit/entries", json=entries[7] | {"reason": "other"})
        assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")

        key = parse_key((await client.get("/api/audit/key")).json()["key"])
        export = await client.get("/api/audit/entries:export")
        assert export.headers["content-type"].startswith("application/x-ndjson")
        found = check(export.content.splitlines(keepends=True), key)
        assert found.good, list(found.lines("export"))
        assert found.entries == found.tree_size >= 60
        damaged = export.content.replace(b'"d1"', b'"d2"', 1)
        assert not check(damaged.splitlines(keepends=True), key).good

        proof = (await client.get(f"/api/audit/entries/{one['entry']['entryId']}/proof")).json()
        assert proof["leafIndex"] == one["entry"]["sequence"]

        async def longer() -> bool:
            newest = (await client.get("/api/audit/checkpoint")).json()
            return int(newest["treeSize"]) > found.tree_size

        await eventually(longer, "a checkpoint with the record that the log was read", within=60)
        page = (await client.get("/api/audit/entries", params={"action": "audit.read"})).json()
        assert [each["resource"]["type"] for each in page["entries"]] == ["audit-log"] * len(page["entries"])
