"""`bas outbox` on the store of a stopped service, and of one that runs."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.config import SETTINGS, Store
from chassis.outbox.parked import RetryFile
from chassis.store.sqlite import SqliteStore
from launcher.main import run
from launcher.store import schema_of
from tests.support.deliveries import POISON, Consumer, Office, effect
from tests.support.eventually import eventually


async def opened(folder: Path) -> SqliteStore:
    return await SqliteStore.open(folder / "devices.db", schema_of("devices"), clock=SystemClock(), budget=Store())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BAS_DATA_DIR", str(tmp_path))
    return tmp_path


async def park(store: SqliteStore, consumer: Consumer, folder: Path) -> Office:
    """One that is parked and one that waits."""
    retries = RetryFile(folder / "devices.db", store)
    office = Office(store, consumer, SystemClock(), attempts=1, retries=retries)
    await office.commit(effect("bad", "devices/d1", payload=POISON))
    await office.relay.walk()
    await office.commit(effect("waits", "devices/d2"))
    return office


def said(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], code: int = 0) -> str:
    capsys.readouterr()  # what the relay logged
    assert run(arguments) == code
    return capsys.readouterr().out


def test_on_a_stopped_platform(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def before() -> None:
        store = await opened(folder)
        await park(store, Consumer(), folder)
        await store.close()

    assert said(capsys, ["outbox", "list"]) == "Nothing waits.\n"
    assert said(capsys, ["outbox", "retry", "--all"], 1) == ""
    asyncio.run(before())
    rows = json.loads(said(capsys, ["outbox", "list", "--json"]))
    shown = [(row["service"], row["id"], row["state"], row["key"], row["attempts"]) for row in rows]
    assert shown == [("devices", "bad", "parked", "devices/d1", 1), ("devices", "waits", "pending", "devices/d2", 0)]
    text = said(capsys, ["outbox", "list", "--parked", "--service", "devices"])
    assert "bad" in text
    assert "The consumer wants none of this." in text
    assert "waits" not in text
    assert said(capsys, ["outbox", "list", "--parked", "--service", "users"]) == "Nothing is parked.\n"
    said(capsys, ["outbox", "retry", "waits"], 1)
    said(capsys, ["outbox", "retry"], 2)
    said(capsys, ["outbox", "list", "--service", "nobody"], 2)
    assert said(capsys, ["outbox", "retry", "bad"]) == "devices: 1 to be tried again\n"
    assert said(capsys, ["outbox", "list", "--parked"]) == "Nothing is parked.\n"


async def test_on_a_running_platform(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    consumer = Consumer()
    store = await opened(folder)
    office = await park(store, consumer, folder)
    assert '"parked"' in await asyncio.to_thread(said, capsys, ["outbox", "list", "--json"])
    running = asyncio.create_task(office.relay.run())
    try:
        told = await asyncio.to_thread(said, capsys, ["outbox", "retry", "--all"])
        assert "devices: 1 to be tried again\n" in told
        refused = {"kind": "event", "outcome": "refused"}
        await eventually(lambda: office.value("bas_outbox_effects_total", **refused) == 2, "another try", within=30)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()
