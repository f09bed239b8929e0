"""`bas store copy` and `bas store indexes`, as they are typed."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.config import Store
from chassis.store.factory import open_engine
from chassis.store.port import Key, Put
from launcher.failure import FAILED, MISUSED
from launcher.main import run
from launcher.store import schema_of
from tests.support.firestore_thread import serving_apart
from tools.indexes import TARGET


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with serving_apart("my-project", "moved") as address:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", address)
        monkeypatch.setenv("BAS_DATA_DIR", str(tmp_path / "data"))
        yield tmp_path


def furnish(folder: Path, count: int) -> None:
    async def fill() -> None:
        settings = Store(url=f"sqlite:///{folder}/")
        store = await open_engine(settings, folder, "devices", schema_of("devices"), clock=SystemClock())
        await store.commit([Put(Key("acme", "devices", secrets.token_hex(8)), {"n": n}) for n in range(count)])
        await store.close()

    asyncio.run(fill())


def test_there_and_back_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    furnish(folder, 300)
    database = "firestore://my-project/moved"
    assert run(["store", "copy", "--from", f"sqlite:///{folder}/", "--to", database]) == 0
    assert "devices: 300 documents copied and compared (devices 300)" in capsys.readouterr().out
    back = ["store", "copy", "--from", database, "--to", f"sqlite:///{folder}/back/", "--service", "devices"]
    assert run([*back, "--tenant", "acme"]) == 0
    assert "300 documents copied" in capsys.readouterr().out
    assert run([*back, "--tenant", "acme"]) == FAILED
    assert "--overwrite" in capsys.readouterr().err
    assert not list((folder / "data").iterdir()), "a finished copy leaves no record"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "sqlite:///x/", "--to", "sqlite:///x/"], "same store"),
        (["--from", "sqlite:///x/", "--to", "postgres://y"], "is not accepted"),
        (["--from", "sqlite:///absent/", "--to", "firestore://my-project/moved"], "there is no file"),
        (["--from", "firestore://my-project/absent", "--to", "sqlite:///x/"], "databases create"),
        (["--from", "sqlite:///x/", "--to", "sqlite:///y/", "--service", "z"], "is not a service"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    if "sqlite:///x/" in arguments[1]:
        furnish(folder / "x", 1)
    assert run(["store", "copy", *arguments]) == MISUSED
    assert said in capsys.readouterr().err


def test_the_indexes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["store", "indexes"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(TARGET.read_text(encoding="utf-8"))
