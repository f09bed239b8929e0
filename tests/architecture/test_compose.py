"""The container files cannot be run here, so they are held to their schema, to our command line and to our settings."""

import copy
import re
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from chassis.config import ConfigError, load
from launcher.main import bas
from launcher.targets import PRESENT

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"FIRESTORE_EMULATOR_HOST"}

_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_DURATION = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
_NAME = r"^[a-z][a-z0-9-]*$"
_SERVICE = {
    "type": "object",
    "required": ["healthcheck", "restart", "command"],
    "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
    "additionalProperties": False,
    "properties": {
        "build": {"const": "."},
        "image": {"type": "string", "pattern": r"^[a-z0-9/-]+(:[a-z0-9.-]+)?$"},
        "command": _STRINGS,
        "restart": {"enum": ["unless-stopped"]},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "cap_drop": _STRINGS,
        "security_opt": _STRINGS,
        "tmpfs": _STRINGS,
        "profiles": _STRINGS,
        "stop_grace_period": _DURATION,
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:[0-9]+:[0-9]+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/[a-z]+$"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {"condition": {"const": "service_healthy"}},
            },
        },
        "healthcheck": {
            "type": "object",
            "required": ["test", "interval", "timeout", "start_period", "retries"],
            "additionalProperties": False,
            "properties": {
                "test": {**_STRINGS, "minItems": 2},
                "interval": _DURATION,
                "timeout": _DURATION,
                "start_period": _DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": _NAME},
        "services": {"type": "object", "additionalProperties": False, "patternProperties": {_NAME: _SERVICE}},
        "volumes": {"type": "object", "patternProperties": {_NAME: {"type": "object", "maxProperties": 0}}},
    },
}
"""The part of the compose specification that we use, and nothing else; ports are published on loopback only."""

Compose = dict[str, Any]


@pytest.fixture
def compose() -> Compose:
    loaded: Compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def ours(compose: Compose) -> Compose:
    return {name: service for name, service in compose["services"].items() if service.get("build")}


def settings_of(service: Compose) -> dict[str, str]:
    return {name: text for name, text in service.get("environment", {}).items() if name not in ELSEWHERE}


def parsed(command: list[str]) -> click.Context:
    """The context of a `bas` command line. Raises click.UsageError when our CLI does not take it."""
    name, *arguments = command
    found = bas.get_command(click.Context(bas), name)
    if found is None:
        raise click.UsageError(f"no command {name!r}")
    return found.make_context(name, arguments)


def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_compose_follows_its_schema(compose: Compose) -> None:
    jsonschema.validate(compose, SCHEMA)


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("devices", "comand", ["serve"]),
        ("devices", "ports", ["50053:50053"]),
        ("devices", "depends_on", {"cache": {"condition": "healthy"}}),
        ("cache", "healthcheck", {"test": ["CMD", "true"]}),
        ("cache", "restart", "sometimes"),
    ],
)
def test_the_schema_catches_mistakes(compose: Compose, service: str, key: str, value: object) -> None:
    broken = copy.deepcopy(compose)
    broken["services"][service][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_every_target_of_this_release_has_its_container(compose: Compose) -> None:
    assert set(ours(compose)) == set(PRESENT)
    for name, service in ours(compose).items():
        assert service["command"] == ["serve", name]


def test_commands_and_health_checks_parse_with_our_command_line(compose: Compose) -> None:
    for service in ours(compose).values():
        parsed(service["command"])
        kind, program, *check = service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "bas")
        parsed(check)
    with pytest.raises(click.UsageError):
        parsed(["serve", "--no-such-option"])


def test_every_variable_is_a_setting_and_every_value_is_accepted(compose: Compose) -> None:
    for service in ours(compose).values():
        load(settings_of(service))
    with pytest.raises(ConfigError):
        load({**settings_of(compose["services"]["devices"]), "BAS_DEVICES_PROT": "1"})


def test_services_find_each_other_at_the_names_and_ports_they_have(compose: Compose) -> None:
    for service in ours(compose).values():
        config = load(settings_of(service))
        for name in set(PRESENT) - {"gateway"}:
            section = getattr(config, name)
            assert section.address == f"{name}:{section.port}"
            assert section.host == "0.0.0.0"
            assert f"127.0.0.1:{section.port}:{section.port}" in compose["services"][name]["ports"]


def test_what_is_referred_to_exists(compose: Compose) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        assert {volume.split(":")[0] for volume in service.get("volumes", ())} <= set(compose["volumes"])


def test_each_service_keeps_its_data_to_itself_and_shares_the_keys(compose: Compose) -> None:
    data = [
        volume
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
        if ":/data" in volume
    ]
    assert len(data) == len(set(data))
    assert all("keys:/keys" in service["volumes"] for service in ours(compose).values())


def test_the_dockerfile_copies_only_what_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for word, rest in dockerfile():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source


def test_the_image_is_locked_unprivileged_and_checked() -> None:
    lines = dockerfile()
    installs = [rest for word, rest in lines if word == "RUN" and "pip install" in rest]
    assert any("--require-hashes -r requirements/runtime.lock" in rest for rest in installs)
    assert all("--require-hashes" in rest or "--no-deps --no-build-isolation" in rest for rest in installs)
    words = [word for word, _ in lines]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert ("USER", "bas") in lines
    check = next(rest for word, rest in lines if word == "HEALTHCHECK")
    parsed(re.findall(r'"([^"]+)"', check.partition("CMD")[2])[1:])


def test_the_image_sets_only_settings_that_exist() -> None:
    pairs = [pair.split("=", 1) for word, rest in dockerfile() if word == "ENV" for pair in rest.split()]
    load({name: text for name, text in pairs if name.startswith("BAS_")})
