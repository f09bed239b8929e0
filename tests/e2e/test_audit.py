"""The audit log as its readers have it: exported from a running platform, and verified where the platform is not."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.platform import Platform, new_platform

WITHIN = 30.0


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up() -> AsyncIterator[Platform]:
    """One for all tests, each with a tenant of its own."""
    async with new_platform(BAS_AUDIT_CHECKPOINT_INTERVAL="400ms") as platform:
        await platform.start()
        yield platform


async def done(caller: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    answer = await caller.request(method, f"/api/{path}", **options)
    assert answer.is_success, f"{method} {path}: {answer.text}"
    return answer.json() if answer.content else None


async def append(caller: httpx.AsyncClient, count: int) -> list[str]:
    """Entries of a writer's own; their ids."""
    entries = [
        {
            "idempotencyKey": f"k{number}",
            "actor": {"subject": "ann", "sessionId": "s1", "ip": "192.0.2.1"},
            "action": "door.opened",
            "resource": {"type": "door", "id": f"d{number}"},
            "outcome": "OUTCOME_SUCCESS",
            "reason": 'said "why" frühmorgens',
            "metadata": {"zone": "b", "floor": "2"} if number % 2 else {},
        }
        for number in range(count)
    ]
    found = (await done(caller, "POST", "audit/entries:batchAppend", json={"entries": entries}))["results"]
    return [each["appended"]["entry"]["entryId"] for each in found]


async def signed(caller: httpx.AsyncClient, size: int) -> dict[str, Any]:
    """The newest checkpoint, once it is of so many entries."""
    newest: dict[str, Any] = {}

    async def there() -> bool:
        answer = await caller.get("/api/audit/checkpoint")
        newest.update(answer.json())
        return answer.status_code == 200 and int(newest["treeSize"]) >= size

    await eventually(there, f"a checkpoint of {size} entries", within=WITHIN, every=0.1)
    return newest


async def test_an_export_is_verified_offline_and_an_altered_one_is_not(up: Platform) -> None:
    async with up.client() as caller:
        ids = await append(caller, 40)
        kept = await signed(caller, 40)
        published = (await done(caller, "GET", "audit/key"))["key"]
    tenant, file = f"acme{up._own}", up.folder / "acme.ndjson"
    exported = up.bas("audit", "export", "--tenant", tenant, "--output", str(file))
    assert exported.returncode == 0, exported.stderr
    assert not file.with_name("acme.ndjson.part").exists()

    key = up.bas("audit", "key", "--tenant", tenant).stdout.strip()
    assert key == published
    verified = up.bas("audit", "verify", str(file))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert f"bas/audit/{tenant}" in verified.stdout
    (up.folder / "kept.note").write_text(kept["note"], encoding="utf-8")
    elsewhere = {"BAS_DATA_DIR": str(up.folder / "nothing here")}
    offline = ("audit", "verify", str(file), "--key", key, "--checkpoint", str(up.folder / "kept.note"))
    assert up.bas(*offline, **elsewhere).returncode == 0
    keyless = up.bas("audit", "verify", str(file), **elsewhere)
    assert keyless.returncode == 2
    assert "--key" in keyless.stderr

    whole = file.read_bytes()
    altered = whole.replace(b'"d17"', b'"d71"')
    assert altered != whole
    file.write_bytes(altered)
    found = up.bas("audit", "verify", str(file), "--json")
    assert found.returncode == 1
    first = json.loads(found.stdout)["findings"][0]
    assert (first["kind"], first["entryId"]) == ("altered", ids[17])


async def test_what_is_done_over_rest_is_in_the_log_and_the_log_holds(up: Platform) -> None:
    async with up.client("changes") as caller:
        await done(caller, "POST", "devices", json={"deviceId": "d1", "displayName": "Boiler"})
        await done(caller, "PATCH", "devices/d1", json={"displayName": "Boiler 7"})
        await done(caller, "DELETE", "devices/d1")
        await done(caller, "POST", "users", json={"userId": "ada", "email": "ada@example.com"})
        made = await done(caller, "POST", "sessions", json={"userId": "ada"})
        revoked = made["session"]["sessionId"]
        await done(caller, "DELETE", f"sessions/{revoked}", params={"reason": "lost phone"})
        expected = {
            "d1": ["device.created", "device.updated", "device.deleted"],
            "ada": ["user.created"],
            revoked: ["session.created", "session.revoked"],
        }

        async def entries() -> list[dict[str, Any]]:
            found = await done(caller, "GET", "audit/entries", params={"pageSize": 100})
            return [each for each in reversed(found["entries"]) if not each["action"].startswith("audit.")]

        async def all_there() -> bool:
            return len(await entries()) >= sum(map(len, expected.values()))

        await eventually(all_there, "an entry for each change", within=WITHIN, every=0.1)
        await signed(caller, 6)
    tenant, file = f"changes{up._own}", up.folder / "changes.ndjson"

    async def exported() -> bool:
        done = up.bas("audit", "export", "--tenant", tenant, "--output", str(file))
        assert done.returncode == 0, done.stderr
        return all(name.encode() in file.read_bytes() for name in ("device.deleted", "session.revoked"))

    await eventually(exported, "an export with all of them", within=WITHIN)
    verified = up.bas("audit", "verify", str(file), "--tenant", tenant)
    assert verified.returncode == 0, verified.stdout
    found: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        entry = json.loads(line)["entry"]["entry"]
        if entry["resource"]["id"] in expected:
            found.setdefault(entry["resource"]["id"], []).append(entry["action"])
            assert entry["actor"]["subject"] == "local"
            assert entry["requestId"]
    assert found == expected
    assert "ada@example.com" not in file.read_text(encoding="utf-8")


async def test_over_http_lines_that_were_cut_off_go_on_at_the_cursor(up: Platform) -> None:
    async with up.client("cut") as caller:
        await append(caller, 30)
        await signed(caller, 30)
        path, whole = "/api/audit/entries:export", []
        async with caller.stream("GET", path) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            async for line in answer.aiter_lines():
                whole.append(line)
                if len(whole) == 12:
                    break
        cursor = json.loads(whole[-1])["entry"]["cursor"]
        rest = (await caller.get(path, params={"cursor": cursor})).text.splitlines()
        assert rest[0] == whole[0]
        entries = [json.loads(line)["entry"] for line in [*whole[1:], *rest[1:]]]
        size = int(json.loads(whole[0])["checkpoint"]["treeSize"])
        assert [int(each["entry"]["sequence"]) for each in entries] == list(range(size))


async def test_a_proof_over_http_holds_for_somebody_elses_arithmetic(up: Platform) -> None:
    async with up.client("proof") as caller:
        ids = await append(caller, 21)
        newest = await signed(caller, 21)
        proof = await done(caller, "GET", f"audit/entries/{ids[13]}/proof", params={"treeSize": newest["treeSize"]})
        size, index = int(proof["treeSize"]), int(proof["leafIndex"])
        hashes = [b64decode(each) for each in proof["hashes"]]
        assert _root(index, size, b64decode(proof["leafHash"]), hashes) == b64decode(newest["rootHash"])
        entry = await done(caller, "GET", f"audit/entries/{ids[13]}")
        assert int(entry["sequence"]) == index


def _root(index: int, size: int, leaf: bytes, hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1.1, as it is defined: by halves, from the top."""
    if size == 1:
        assert not hashes
        return leaf
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha256(b"\x01" + _root(index, split, leaf, hashes[:-1]) + hashes[-1]).digest()
    return sha256(b"\x01" + hashes[-1] + _root(index - split, size - split, leaf, hashes[:-1])).digest()


async def test_wrong_usage(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    for arguments in (["verify", "not there"], ["export"], ["key"], ["verify", str(tmp_path)]):
        assert platform.bas("audit", *arguments).returncode == 2, arguments
