"""Every budget and setting of the platform, typed, frozen, read once at the edge.

A setting is `BAS_<SECTION>_<NAME>` in the environment or `[section] name = …` in the TOML file named by
`BAS_CONFIG_FILE`; the environment wins. An unknown `BAS_` variable, an unknown key in the file or a bad value raises
ConfigError naming the setting, the value and what is accepted. No other module reads the environment.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_type_hints

_UNITS: Final = MappingProxyType({"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SWITCH: Final = MappingProxyType({"on": True, "true": True, "1": True, "off": False, "false": False, "0": False})
_ELSEWHERE: Final = frozenset({"BAS_CONFIG_FILE"})


class ConfigError(Exception):
    """A setting is unknown or its value is not accepted; the message names it and what to write instead."""


class Seconds(float):
    """A duration in seconds; written `250ms`, `30s`, `15m`, `1h`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    low: float
    high: float


def _setting(default: Any, meaning: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    bounds = None if low is None or high is None else Bounds(low, high)
    return field(default=default, metadata={"meaning": meaning, "bounds": bounds, **more})


def _port(number: int, what: str) -> Any:
    return _setting(number, f"TCP port of {what}", 0, 65535)


def _host(what: str) -> Any:
    return _setting("127.0.0.1", f"address that {what} listens on")


@dataclass(frozen=True, slots=True)
class Data:
    dir: str = _setting(".bas", "folder of databases, keys and the embedded Valkey")


@dataclass(frozen=True, slots=True)
class Log:
    level: str = _setting("info", "least severe line that is written", choices=("debug", "info", "warning", "error"))
    format: str = _setting(
        "auto", "json lines, text for people, or by whether it is a terminal", choices=("auto", "json", "text")
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a gRPC service listens and where others find it."""

    host: str = _host("the service")
    port: int = _port(0, "the service's gRPC server")
    metrics_port: int = _setting(-1, "TCP port of the process's metrics; -1 is the gRPC port + 1000", -1, 65535)
    address: str = _setting("", "host:port at which others reach the service; empty is host:port of this section")


@dataclass(frozen=True, slots=True)
class Gateway:
    host: str = _host("the gateway")
    port: int = _port(8080, "the HTTP gateway")
    max_body: int = _setting(4 * 1024 * 1024, "largest request body in bytes", 1024, 64 * 1024 * 1024)
    cors_origins: tuple[str, ...] = _setting((), "origins allowed to call from a browser, comma-separated")
    drain: Seconds = _setting(Seconds(3), "time for requests in progress when stopping", 0, 300)


@dataclass(frozen=True, slots=True)
class Api:
    v1: bool = _setting(False, "whether the deprecated v1 paths are registered")
    v1_deprecated: str = _setting("2026-01-01", "date since which v1 is deprecated")
    v1_sunset: str = _setting("2027-06-30", "date on which v1 goes away")


@dataclass(frozen=True, slots=True)
class Grpc:
    max_message: int = _setting(4 * 1024 * 1024, "largest gRPC message in bytes", 65536, 64 * 1024 * 1024)
    drain: Seconds = _setting(Seconds(3), "time for calls in progress when stopping", 0, 300)
    reflection: str = _setting(
        "auto",
        "server reflection and channelz without credential: on, off, or auto (on loopback only)",
        choices=("auto", "on", "off"),
    )
    max_concurrent: int = _setting(2000, "calls in progress a process before it refuses more", 1, 100000)


@dataclass(frozen=True, slots=True)
class Auth:
    issuer: str = _setting("bas", "`iss` of caller tokens")
    audience: str = _setting("bas", "`aud` of caller tokens")
    keys: str = _setting("", "JWKS file of the signing keys; empty is keys.json in the data folder")
    leeway: Seconds = _setting(Seconds(5), "clock difference tolerated in exp, nbf and iat", 0, 300)
    max_ttl: Seconds = _setting(Seconds(30 * 86400), "longest life of a caller token", 1, 366 * 86400)
    verified_cache: int = _setting(10000, "verified tokens remembered", 0, 1000000)


@dataclass(frozen=True, slots=True)
class Redis:
    url: str = _setting("", "redis://, rediss:// or unix:// URL; empty is the embedded Valkey", secret=True)
    op_timeout: Seconds = _setting(Seconds(0.010), "time for one cache operation", 0.001, 10)
    connect_timeout: Seconds = _setting(Seconds(0.250), "time to connect", 0.01, 30)
    pool: int = _setting(64, "connections at most", 1, 64)
    pool_wait: Seconds = _setting(Seconds(0.020), "time to wait for a free connection", 0, 1)


@dataclass(frozen=True, slots=True)
class Store:
    url: str = _setting(
        "", "sqlite:///path or firestore://project/database; empty is one SQLite file a service in the data folder"
    )
    read_timeout: Seconds = _setting(Seconds(1.0), "time for one store read", 0.01, 60)
    write_timeout: Seconds = _setting(Seconds(2.0), "time for one store commit", 0.01, 60)
    retries: int = _setting(2, "retries of one store operation at most", 0, 2)


@dataclass(frozen=True, slots=True)
class CacheTtl:
    session_ttl: Seconds = _setting(Seconds(1800), "longest life of a cached session", 1, 1800)
    profile_ttl: Seconds = _setting(Seconds(60), "life of a cached user profile", 1, 3600)
    device_ttl: Seconds = _setting(Seconds(60), "life of a cached device", 1, 60)
    list_ttl: Seconds = _setting(Seconds(30), "life of a cached first page of devices", 1, 60)
    count_ttl: Seconds = _setting(Seconds(30), "life of a cached device count", 1, 60)
    telemetry_ttl: Seconds = _setting(Seconds(30), "life of a telemetry snapshot", 1, 3600)
    negative_ttl: Seconds = _setting(Seconds(3), "life of a cached absence", 0.1, 30)
    lease_ttl: Seconds = _setting(Seconds(10), "life of a fill lease; longer than the longest load", 1, 300)
    jitter: float = _setting(0.10, "share by which every TTL is varied, both ways", 0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Breaker:
    failures: int = _setting(5, "failures within the window that open a breaker", 1, 10000)
    window: Seconds = _setting(Seconds(30), "rolling window in which failures count", 0.1, 3600)
    half_open_after: Seconds = _setting(Seconds(15), "time until an open breaker probes", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Deadline:
    default: Seconds = _setting(Seconds(0.5), "deadline of a call whose RPC declares none", 0.01, 60)
    margin: Seconds = _setting(Seconds(0.010), "least part of a deadline kept back for the answer", 0, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    rate: float = _setting(500.0, "requests a second per tenant and API version", 0.1, 1e6)
    burst: int = _setting(1000, "burst per tenant and API version", 1, 10_000_000)


@dataclass(frozen=True, slots=True)
class Devices(Endpoint):
    port: int = _port(50053, "the devices service's gRPC server")
    heartbeat_interval: Seconds = _setting(
        Seconds(30), "interval at which devices are told to send heartbeats", 1, 3600
    )
    offline_after: Seconds = _setting(Seconds(90), "silence after which a device is offline", 1, 86400)
    flush_interval: Seconds = _setting(
        Seconds(60), "least time between two store writes of one device's last_seen_time", 1, 3600
    )
    sweep_interval: Seconds = _setting(Seconds(5), "time between two looks for devices that went silent", 0.1, 300)


@dataclass(frozen=True, slots=True)
class Sessions(Endpoint):
    port: int = _port(50051, "the sessions service's gRPC server")


@dataclass(frozen=True, slots=True)
class Users(Endpoint):
    port: int = _port(50052, "the users service's gRPC server")


@dataclass(frozen=True, slots=True)
class Audit(Endpoint):
    port: int = _port(50054, "the audit service's gRPC server")
    recent_cache: bool = _setting(False, "whether RecentEntries may be answered from the cache")


@dataclass(frozen=True, slots=True)
class Events(Endpoint):
    port: int = _port(50055, "the events service's gRPC server")


@dataclass(frozen=True, slots=True)
class Config:
    """All sections. Pass the section a module needs, not the whole, wherever that is enough."""

    data: Data = field(default_factory=Data)
    log: Log = field(default_factory=Log)
    gateway: Gateway = field(default_factory=Gateway)
    api: Api = field(default_factory=Api)
    grpc: Grpc = field(default_factory=Grpc)
    auth: Auth = field(default_factory=Auth)
    redis: Redis = field(default_factory=Redis)
    store: Store = field(default_factory=Store)
    cache: CacheTtl = field(default_factory=CacheTtl)
    breaker: Breaker = field(default_factory=Breaker)
    deadline: Deadline = field(default_factory=Deadline)
    limits: Limits = field(default_factory=Limits)
    sessions: Sessions = field(default_factory=Sessions)
    users: Users = field(default_factory=Users)
    devices: Devices = field(default_factory=Devices)
    audit: Audit = field(default_factory=Audit)
    events: Events = field(default_factory=Events)
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variable name → `file` or `environment`; a name that is absent has its default."""


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

    def parse(self, text: str) -> Any:
        """The typed value of `text`. Raises ConfigError."""
        try:
            value = _PARSERS[self.kind](text.strip())
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
        form = _FORMS[self.kind]
        if self.bounds is None:
            return form
        low, high = (show(self.kind(bound)) for bound in (self.bounds.low, self.bounds.high))
        return f"{form} from {low} to {high}"


def _duration(text: str) -> Seconds:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Seconds(float(match[1]) * _UNITS[match[2]])


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", text):
        raise ValueError(text)
    return float(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_PARSERS: Final[Mapping[type, Callable[[str], Any]]] = MappingProxyType(
    {str: str, int: _whole, float: _number, bool: lambda text: _SWITCH[text.lower()], Seconds: _duration, tuple: _words}
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


def show(value: Any) -> str:
    """A value as it would be written in the environment."""
    if isinstance(value, Seconds):
        for unit in ("d", "h", "m", "s", "ms", "us"):
            scaled = value / _UNITS[unit]
            if scaled >= 1 and abs(scaled - round(scaled)) < 1e-9:  # noqa: PLR2004 - float noise, not a quantity
                return f"{round(scaled)}{unit}"
        return f"{value:g}s"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rows() -> dict[str, Setting]:
    rows = {}
    for section in fields(Config):
        if section.name == "sources":
            continue
        kind: Any = section.default_factory
        hints = get_type_hints(kind)
        for item in fields(kind):
            row = _row(section.name, item, hints[item.name])
            rows[row.variable] = row
    return rows


def _row(section: str, item: "Field[Any]", hint: Any) -> Setting:
    if item.default is MISSING:
        raise TypeError(f"{section}.{item.name} has no default")
    return Setting(
        variable=f"BAS_{section}_{item.name}".upper(),
        section=section,
        name=item.name,
        kind=hint if isinstance(hint, type) and hint in _PARSERS else tuple,
        default=item.default,
        meaning=item.metadata["meaning"],
        bounds=item.metadata.get("bounds"),
        choices=item.metadata.get("choices", ()),
        secret=item.metadata.get("secret", False),
    )


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(_rows())
"""Variable name → its description, in the order of `Config`."""

_BY_KEY: Final = MappingProxyType({(row.section, row.name): row for row in SETTINGS.values()})


def load(environ: Mapping[str, str]) -> Config:
    """The configuration that `environ` (and the file it names) describes. Raises ConfigError."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for row, text in _from_file(environ.get("BAS_CONFIG_FILE", "")):
        values[row.variable] = row.parse(text)
        sources[row.variable] = "file"
    for variable, text in environ.items():
        if not variable.startswith("BAS_") or variable in _ELSEWHERE:
            continue
        known = SETTINGS.get(variable)
        if known is None:
            raise ConfigError(
                f"{variable} is not a setting of this release: `bas config` lists those there are{_nearest(variable)}."
            )
        values[variable] = known.parse(text)
        sources[variable] = "environment"
    sections: dict[str, dict[str, Any]] = {}
    for variable, value in values.items():
        row = SETTINGS[variable]
        sections.setdefault(row.section, {})[row.name] = value
    made = {section: _section_type(section)(**given) for section, given in sections.items()}
    return Config(**made, sources=MappingProxyType(sources))


def _section_type(section: str) -> Any:
    return Config.__dataclass_fields__[section].default_factory


def _from_file(path: str) -> list[tuple[Setting, str]]:
    if not path:
        return []
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"BAS_CONFIG_FILE={path!r} cannot be read: {problem}.") from None
    rows = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section!r} stands outside a [section].")
        for name, value in table.items():
            row = _BY_KEY.get((section, name))
            if row is None:
                raise ConfigError(
                    f"{path}: [{section}] {name} is not a setting of this release{_nearest(f'BAS_{section}_{name}'.upper())}."
                )
            rows.append((row, show(value) if not isinstance(value, list) else ",".join(map(str, value))))
    return rows


def _nearest(variable: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error; keeps the import cheap

    near = get_close_matches(variable, SETTINGS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
