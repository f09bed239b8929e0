"""Settings: where they come from, what is refused and in which words, and that nothing changes afterwards."""

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.config import SETTINGS, Config, ConfigError, Redis, Seconds, Setting, load, show


def each(settings: Iterable[Setting]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setting", list(settings), ids=lambda setting: setting.variable)


EVERY = each(SETTINGS.values())
BOUNDED = each(row for row in SETTINGS.values() if row.bounds)
CHOOSY = each(row for row in SETTINGS.values() if row.kind not in (str, tuple) or row.choices or row.check)


def value_of(config: Config, setting: Setting) -> Any:
    return getattr(getattr(config, setting.section), setting.name)


def other_than_default(setting: Setting) -> Any:
    """A value that is accepted and is not the default."""
    if setting.choices:
        return next(choice for choice in setting.choices if choice != setting.default)
    if setting.kind is bool:
        return not setting.default
    if setting.bounds:
        return setting.kind(setting.bounds.low if setting.default != setting.bounds.low else setting.bounds.high)
    if setting.check:
        return "2031-12-24"
    return ("a", "b") if setting.kind is tuple else "other"


def config_file(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "bas.toml"
    path.write_text(text, encoding="utf-8")
    return {"BAS_CONFIG_FILE": str(path)}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return str(caught.value)


def test_the_defaults_are_the_contract() -> None:
    config = load({"PATH": "/bin", "HOME": "/", "BASH": "x"})
    assert config == Config()
    assert config.gateway.port == 8080
    ports = [getattr(config, name).port for name in ("sessions", "users", "devices", "audit", "events")]
    assert ports == [50051, 50052, 50053, 50054, 50055]
    assert (config.limits.rate, config.limits.burst) == (500.0, 1000)
    assert not config.sources


@EVERY
def test_every_default_is_accepted_and_is_shown_as_it_is_written(setting: Setting) -> None:
    assert setting.parse(show(setting.default)) == setting.default
    assert type(setting.parse(show(setting.default))) is setting.kind
    assert type(setting.default) is setting.kind
    assert setting.meaning


@EVERY
def test_every_setting_can_be_given_by_the_environment(setting: Setting) -> None:
    wanted = other_than_default(setting)
    config = load({setting.variable: show(wanted)})
    assert value_of(config, setting) == wanted
    assert config.sources == {setting.variable: "environment"}
    rest = [other for other in SETTINGS.values() if other is not setting]
    assert all(value_of(config, other) == other.default for other in rest)


@EVERY
def test_every_setting_can_be_given_by_the_file_and_the_environment_wins(setting: Setting, tmp_path: Path) -> None:
    wanted = other_than_default(setting)
    environ = config_file(tmp_path, f"[{setting.section}]\n{setting.name} = '{show(wanted)}'\n")
    assert value_of(load(environ), setting) == wanted
    assert load(environ).sources == {setting.variable: "file"}
    both = load({setting.variable: show(setting.default), **environ})
    assert value_of(both, setting) == setting.default
    assert both.sources == {setting.variable: "environment"}


@CHOOSY
def test_every_bad_value_is_refused_with_the_name_and_what_is_accepted(setting: Setting) -> None:
    said = refusal({setting.variable: "?!"})
    assert setting.variable in said
    assert setting.accepted() in said


@BOUNDED
def test_bounds_are_accepted_and_one_beyond_is_not(setting: Setting) -> None:
    assert setting.bounds
    for bound in (setting.bounds.low, setting.bounds.high):
        assert setting.parse(show(setting.kind(bound))) == bound
    with pytest.raises(ConfigError, match=show(setting.kind(setting.bounds.high))):
        setting.parse(show(setting.kind(setting.bounds.high + 1)))


def test_toml_values_of_their_own_types(tmp_path: Path) -> None:
    config = load(
        config_file(
            tmp_path,
            "[gateway]\nport = 9000\ncors_origins = ['https://a', 'https://b']\n"
            "[limits]\nrate = 12.5\n[api]\nv1 = true\nv1_sunset = 2030-01-01\n[redis]\nop_timeout = '5ms'\n",
        )
    )
    assert config.gateway.port == 9000
    assert config.gateway.cors_origins == ("https://a", "https://b")
    assert config.limits.rate == 12.5
    assert config.api.v1
    assert config.api.v1_sunset == "2030-01-01"
    assert config.redis.op_timeout == Seconds(0.005)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nprot = 1", "did you mean BAS_GATEWAY_PORT?"),
        ("[gateway]\nPORT = 1", "is not a setting"),
        ("[getaway]\nport = 1", "there is no section [getaway]"),
        ("[getaway]", "there is no section [getaway]"),
        ("port = 1", "outside a [section]"),
        ("[gateway]\nport = 'x'", "a whole number from 0 to 65535"),
        ("[gateway]\nport = 1.5", "a whole number"),
        ("[limits]\nrate = nan", "a number"),
        ("[limits]\nrate = inf", "a number"),
        ("[redis]\nop_timeout = 5", "a duration such as"),
        ("[gateway]\ncors_origins = [{a = 1}]", "is a table"),
        ("[gateway.port]\nx = 1", "a whole number"),
        ("[data.dir]\nx = 1", "is a table, and takes text"),
        ("[api]\nv1_sunset = 'soon'", "a date such as"),
        ("[gateway\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    said = refusal(config_file(tmp_path, text))
    assert words in said
    assert "bas.toml" in said


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert "cannot be read" in refusal({"BAS_CONFIG_FILE": str(tmp_path / "none.toml")})
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in refusal({"BAS_CONFIG_FILE": str(tmp_path / "x.toml")})


@pytest.mark.parametrize("name", ["BAS_GATEWAY_PROT", "BAS_gateway_port", "BAS_GATEWAYPORT"])
def test_an_unknown_variable_suggests_the_nearest(name: str) -> None:
    assert "did you mean BAS_GATEWAY_PORT?" in refusal({name: "8080"})


def test_an_unknown_variable_without_a_near_one() -> None:
    assert "`bas config`" in refusal({"BAS_": ""})


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    secret = Setting("BAS_X_Y", "x", "y", int, 0, "m", None, (), secret=True)
    with pytest.raises(ConfigError) as caught:
        secret.parse("hunter2")
    assert "hunter2" not in str(caught.value)
    assert SETTINGS["BAS_REDIS_URL"].secret
    assert "hunter2" not in refusal({"BAS_REDIS_URI": "redis://:hunter2@h"})
    assert "hunter2" not in refusal(config_file(tmp_path, "[redis]\nurl = redis://:hunter2@h"))
    assert "hunter2" not in refusal(config_file(tmp_path, "[redis]\nuri = 'redis://:hunter2@h'"))
    assert "hunter2" not in refusal(config_file(tmp_path, "[redis.url]\nx = 'hunter2'"))


def test_nothing_can_be_changed() -> None:
    config = load({"BAS_GATEWAY_PORT": "1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gateway.port = 2  # type: ignore[misc]  # the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.redis = Redis()  # type: ignore[misc]  # the point
    with pytest.raises(TypeError):
        config.sources["x"] = "y"  # type: ignore[index]  # the point
    with pytest.raises(TypeError):
        SETTINGS["x"] = SETTINGS["BAS_REDIS_URL"]  # type: ignore[index]  # the point
    assert load({}).gateway.port == 8080


def test_loading_takes_less_than_a_millisecond() -> None:
    environ = {setting.variable: show(setting.default) for setting in SETTINGS.values()}
    took = []
    for _ in range(100):
        start = time.thread_time()  # the work, not what else the machine does
        load(environ)
        took.append(time.thread_time() - start)
    assert min(took) < 0.001


@given(st.floats(0, 1e9, allow_nan=False))
def test_durations_survive_being_shown(seconds: float) -> None:
    setting = Setting("BAS_X_Y", "x", "y", Seconds, Seconds(0), "m", None, (), secret=False)
    if seconds == 0 or seconds > 1e-9:  # what has more than 18 decimals cannot be written
        rounded = Seconds(round(seconds, 9))
        assert setting.parse(show(rounded)) == rounded


@given(st.floats(-1e15, 1e15))
def test_numbers_survive_being_shown(number: float) -> None:
    setting = Setting("BAS_X_Y", "x", "y", float, 0.0, "m", None, (), secret=False)
    rounded = round(number, 6)
    assert setting.parse(show(rounded)) == rounded


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("35ms", 0.035), ("1.5s", 1.5), ("15m", 900), ("1h", 3600), ("7us", 7e-6), ("2d", 172800)],
)
def test_durations_read_as_people_write_them(text: str, seconds: float) -> None:
    setting = Setting("BAS_X_Y", "x", "y", Seconds, Seconds(0), "m", None, (), secret=False)
    assert setting.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "5S", "1e3s", "\u0665s", ".5s", "5sec", "infs"])
def test_what_is_no_duration(text: str) -> None:
    assert "a duration such as 250ms" in refusal({"BAS_GATEWAY_DRAIN": text})


@pytest.mark.parametrize("text", ["yes", "2", "", "TRUE!"])
def test_what_is_no_switch(text: str) -> None:
    assert "on or off" in refusal({"BAS_API_V1": text})


@pytest.mark.parametrize(("text", "value"), [("on", True), ("TRUE", True), (" 1 ", True), ("off", False), ("0", False)])
def test_switches(text: str, value: bool) -> None:  # noqa: FBT001 - the value under test
    assert load({"BAS_API_V1": text}).api.v1 is value
