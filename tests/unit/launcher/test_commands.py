"""The command line as a person meets it: exit codes, messages, what is on which stream."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chassis.auth.keys import load as load_keys
from chassis.auth.tokens import verify
from chassis.config import SETTINGS, Auth, load
from launcher import keys
from launcher.main import COMMANDS, run


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the surrounding shell; a data folder of our own."""
    for name in tuple(SETTINGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BAS_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example:" in out
    assert f"bas {name}" in out or f" {name}" in out.partition("Example:")[2]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["token"], ["token", "--tenant"], ["config", "--no-such"], ["serve"], ["serve", "users"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("name", ["config", "up", "status", "serve devices", "token --tenant acme"])
def test_a_bad_setting_stops_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAS_GATEWAY_PORT", "many")
    assert run(name.split()) == 2
    assert "BAS_GATEWAY_PORT='many'" in capsys.readouterr().err


def test_config_lists_every_setting_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAS_DEADLINE_DEFAULT", "250ms")
    assert run(["config", "--json"]) == 0
    rows = {row["variable"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(SETTINGS)
    assert (rows["BAS_DEADLINE_DEFAULT"]["value"], rows["BAS_DEADLINE_DEFAULT"]["source"]) == ("250ms", "environment")
    assert rows["BAS_GATEWAY_PORT"]["source"] == "default"
    assert run(["config"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in SETTINGS)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BAS_REDIS_URL", "redis://:hunter2@localhost")
    for arguments in (["config"], ["config", "--json"]):
        assert run(arguments) == 0
        out = capsys.readouterr().out
        assert "hunter2" not in out
        assert "***" in out


def test_a_token_is_all_that_is_printed_and_it_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.make(load({"BAS_DATA_DIR": str(tmp_path)}))
    assert run(["token", "--tenant", "acme", "--subject", "ann", "--ttl", "15m"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    caller = verify(out.strip(), load_keys(tmp_path / "keys.json"), Auth(), datetime.now(UTC))
    assert (caller.tenant, caller.subject) == ("acme", "ann")
    assert caller.may("devices:admin")
    assert caller.may("audit:read")


def test_a_token_with_scopes_has_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.make(load({"BAS_DATA_DIR": str(tmp_path)}))
    assert run(["token", "--tenant", "acme", "--scope", "devices:read", "--scope", "users:write"]) == 0
    caller = verify(capsys.readouterr().out.strip(), load_keys(tmp_path / "keys.json"), Auth(), datetime.now(UTC))
    assert caller.scopes == {"devices:read", "users:write", "users:read"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ttl", "soon"], "--ttl"),
        (["--ttl", "60d"], "BAS_AUTH_MAX_TTL"),
        (["--scope", "everything"], "scope 'everything'"),
        (["--subject", ""], "subject"),
    ],
)
def test_a_token_that_cannot_be_is_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.make(load({"BAS_DATA_DIR": str(tmp_path)}))
    assert run(["token", "--tenant", "acme", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_a_token_without_a_platform_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--tenant", "acme"]) == 2
    err = capsys.readouterr().err
    assert "bas up" in err
    assert "BAS_DATA_DIR" in err


@pytest.mark.parametrize("command", ["token --tenant acme", "up"])
def test_a_half_written_key_file_names_its_setting(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GATEWAY_PORT", "DEVICES_PORT"):
        monkeypatch.setenv(f"BAS_{name}", "0")
    (tmp_path / "keys.json").write_text('{"keys": [{"kty": "OK')
    assert run(command.split()) == 2
    assert "BAS_AUTH_KEYS" in capsys.readouterr().err
