"""How settings are described, written, read and shown; what they are stands in `chassis.config`."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_type_hints

FILE_VARIABLE: Final = "BAS_CONFIG_FILE"

_UNITS: Final = MappingProxyType(
    {"d": (86400, 1), "h": (3600, 1), "m": (60, 1), "s": (1, 1), "ms": (1, 1000), "us": (1, 10**6)}
)
"""Unit → (times, divided by): dividing gives the float nearest to what was written, multiplying by 0.001 does not."""
_DURATION: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(us|ms|s|m|h|d)", re.ASCII)
_WHOLE: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?", re.ASCII)
_SWITCH: Final = MappingProxyType({"on": True, "true": True, "1": True, "off": False, "false": False, "0": False})


class ConfigError(Exception):
    """A setting is unknown or its value is not accepted; the message names it and what to write instead."""


class Seconds(float):
    """A duration in seconds; written `250ms`, `30s`, `15m`, `1h`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    low: float
    high: float


def setting(default: Any, meaning: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """A field of a section. `more`: `choices` (texts), `secret` (never shown), `check` (raises ValueError) with
    `form` (what it accepts)."""
    bounds = None if low is None or high is None else Bounds(low, high)
    return field(default=default, metadata={"meaning": meaning, "bounds": bounds, **more})


def date_text(text: str) -> None:
    """Raises ValueError for what is no ISO 8601 date."""
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError(text)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of `bas config`."""

    variable: str
    section: str
    name: str
    kind: type
    default: Any
    meaning: str
    bounds: Bounds | None
    choices: tuple[str, ...]
    secret: bool
    check: Callable[[str], None] | None = None
    form: str = ""

    def parse(self, text: str) -> Any:
        """The typed value of `text`. Raises ConfigError."""
        try:
            value = _PARSERS[self.kind](text.strip())
            if self.check:
                self.check(value)
        except (ValueError, KeyError):
            raise self.refused(text) from None
        if self.choices and value not in self.choices:
            raise self.refused(text)
        if self.bounds and not self.bounds.low <= value <= self.bounds.high:
            raise self.refused(text)
        return value

    def refused(self, text: str) -> ConfigError:
        return ConfigError(
            f"{self.variable}={'***' if self.secret else repr(text)} is not accepted: {self.accepted()}."
        )

    def accepted(self) -> str:
        """What may be written, for messages and `bas config`."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        form = self.form or _FORMS[self.kind]
        if self.bounds is None:
            return form
        low, high = (show(self.kind(bound)) for bound in (self.bounds.low, self.bounds.high))
        return f"{form} from {low} to {high}"


def show(value: Any) -> str:
    """A value as it would be written in the environment; parsing it gives the value back."""
    if isinstance(value, Seconds):
        for unit, (times, divisor) in _UNITS.items():
            count = round(value / times * divisor)
            if count >= 1 and count * times / divisor == value:
                return f"{count}{unit}"
        return _decimal(value) + "s"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return _decimal(value) if isinstance(value, float) else str(value)


def rows_of(section: str, kind: Any) -> list[Setting]:
    """The settings of one section, a dataclass whose fields were made by `setting`."""
    hints = get_type_hints(kind)
    return [_row(section, item, hints[item.name]) for item in fields(kind)]


def read(environ: Mapping[str, str], rows: Mapping[str, Setting]) -> Iterator[tuple[Setting, Any, str]]:
    """(setting, value, `file` or `environment`) for all that is given, the stronger source last. Raises ConfigError."""
    path = environ.get(FILE_VARIABLE, "")
    if path:
        yield from ((row, value, "file") for row, value in _from_file(path, rows))
    for variable, text in environ.items():
        if not variable.startswith("BAS_") or variable == FILE_VARIABLE:
            continue
        row = rows.get(variable)
        if row is None:
            raise ConfigError(
                f"{variable} is not a setting of this release: "
                f"`bas config` lists those there are{_nearest(variable, rows)}."
            )
        yield row, row.parse(text), "environment"


def _from_file(path: str, rows: Mapping[str, Setting]) -> Iterator[tuple[Setting, Any]]:
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{FILE_VARIABLE}={path!r} cannot be read: {problem}.") from None
    sections = {row.section for row in rows.values()}
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section!r} stands outside a [section].")
        if section not in sections:
            raise ConfigError(f"{path}: there is no section [{section}]; there are {', '.join(sorted(sections))}.")
        for name, value in table.items():
            variable = _variable(section, name)
            row = rows.get(variable)
            if row is None or row.name != name:
                raise ConfigError(
                    f"{path}: [{section}] {name} is not a setting of this release{_nearest(variable, rows)}."
                )
            try:
                yield row, row.parse(_as_text(value))
            except TypeError:
                raise ConfigError(f"{path}: [{section}] {name} is a table, and takes {row.accepted()}.") from None
            except ConfigError as problem:
                raise ConfigError(f"{path}: {problem}") from None


def _as_text(value: Any) -> str:
    """A TOML value as it would stand in the environment. Raises TypeError for a table."""
    if isinstance(value, dict):
        raise TypeError(value)
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return _decimal(value) if isinstance(value, float) else show(value)


def _row(section: str, item: "Field[Any]", hint: Any) -> Setting:
    if item.default is MISSING:
        raise TypeError(f"{section}.{item.name} has no default")
    return Setting(
        variable=_variable(section, item.name),
        section=section,
        name=item.name,
        kind=hint if isinstance(hint, type) and hint in _PARSERS else tuple,
        default=item.default,
        meaning=item.metadata["meaning"],
        bounds=item.metadata.get("bounds"),
        choices=item.metadata.get("choices", ()),
        secret=item.metadata.get("secret", False),
        check=item.metadata.get("check"),
        form=item.metadata.get("form", ""),
    )


def _variable(section: str, name: str) -> str:
    return f"BAS_{section}_{name}".upper()


def _decimal(value: float) -> str:
    """All digits that tell this float from its neighbours, without an exponent."""
    return f"{value:.0f}" if value.is_integer() else format(Decimal(repr(float(value))), "f")


def _duration(text: str) -> Seconds:
    amount, unit = _matching(_DURATION, text).groups()
    times, divisor = _UNITS[unit]
    return Seconds(float(amount) * times / divisor)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _matching(pattern: "re.Pattern[str]", text: str) -> "re.Match[str]":
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return match


def _nearest(variable: str, rows: Mapping[str, Setting]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error; keeps the import cheap

    near = get_close_matches(variable.upper(), rows, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


_PARSERS: Final[Mapping[type, Callable[[str], Any]]] = MappingProxyType(
    {
        str: str,
        int: lambda text: int(_matching(_WHOLE, text)[0]),
        float: lambda text: float(_matching(_NUMBER, text)[0]),
        bool: lambda text: _SWITCH[text.lower()],
        Seconds: _duration,
        tuple: _words,
    }
)
_FORMS: Final[Mapping[type, str]] = MappingProxyType(
    {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "on or off",
        Seconds: "a duration such as 250ms, 30s, 15m,",
        tuple: "a comma-separated list",
    }
)
