"""Every budget and setting of the platform, typed, frozen, read once at the edge.

A setting is `BAS_<SECTION>_<NAME>` in the environment or `[section] name = …` in the TOML file named by
`BAS_CONFIG_FILE`; the environment wins. An unknown `BAS_` variable, an unknown key in the file or a bad value raises
ConfigError naming the setting, the value and what is accepted. No other module reads the environment.
How texts become values is in `chassis.settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from chassis.settings import Bounds, ConfigError, Seconds, Setting, date_text, read, rows_of, setting, show

__all__ = [
    "SETTINGS",
    "Api",
    "Audit",
    "Auth",
    "Bounds",
    "Breaker",
    "CacheTtl",
    "Config",
    "ConfigError",
    "Data",
    "Deadline",
    "Devices",
    "Endpoint",
    "Events",
    "Gateway",
    "Grpc",
    "Limits",
    "Log",
    "Outbox",
    "Redis",
    "Retry",
    "Seconds",
    "Sessions",
    "Setting",
    "Shed",
    "Store",
    "Users",
    "load",
    "show",
]


_DATE: Final = "a date such as 2027-06-30"


def _port(number: int, what: str) -> Any:
    return setting(number, f"TCP port of {what}", 0, 65535)


def _host(what: str) -> Any:
    return setting("127.0.0.1", f"address that {what} listens on")


@dataclass(frozen=True, slots=True)
class Data:
    dir: str = setting(".bas", "folder of databases, keys and the embedded Valkey")


@dataclass(frozen=True, slots=True)
class Log:
    level: str = setting("info", "least severe line that is written", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto", "json lines, text for people, or by whether it is a terminal", choices=("auto", "json", "text")
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a gRPC service listens and where others find it."""

    host: str = _host("the service")
    port: int = _port(0, "the service's gRPC server")
    metrics_port: int = setting(-1, "TCP port of the process's metrics; -1 is the gRPC port + 1000", -1, 65535)
    address: str = setting("", "host:port at which others reach the service; empty is host:port of this section")


@dataclass(frozen=True, slots=True)
class Gateway:
    host: str = _host("the gateway")
    port: int = _port(8080, "the HTTP gateway")
    max_body: int = setting(4 * 1024 * 1024, "largest request body in bytes", 1024, 64 * 1024 * 1024)
    max_head: int = setting(32 * 1024, "largest request line and headers in bytes", 1024, 1024 * 1024)
    max_connections: int = setting(15_000, "connections before a further one's requests are refused", 1, 1_000_000)
    head_timeout: Seconds = setting(Seconds(10), "time for a request's headers to arrive", 0.1, 300)
    body_timeout: Seconds = setting(Seconds(10), "time for a request's body to arrive", 0.1, 3600)
    cors_origins: tuple[str, ...] = setting((), "origins allowed to call from a browser, comma-separated")
    services: tuple[str, ...] = setting((), "services of this deployment, comma-separated; empty is all there are")
    drain: Seconds = setting(Seconds(3), "time for requests in progress when stopping", 0, 300)
    max_streams: int = setting(12_000, "event streams at once, of all tenants; fewer than connections", 1, 1_000_000)
    tenant_streams: int = setting(10_000, "event streams of one tenant at once", 1, 1_000_000)
    stream_heartbeat: Seconds = setting(Seconds(15), "longest silence of an event stream", 0.1, 20)
    stream_retry: Seconds = setting(Seconds(3), "wait that event streams tell clients, varied by half", 0.1, 300)
    stream_buffer: int = setting(1024 * 1024, "unsent bytes of a stream at which it is too slow", 16384, 64 * 1024**2)
    stream_stall: Seconds = setting(Seconds(30), "time that a stream waits for a client that does not read", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Api:
    v1: bool = setting(False, "whether the deprecated v1 paths are registered")
    v1_deprecated: str = setting("2026-01-01", "date since which v1 is deprecated", check=date_text, form=_DATE)
    v1_sunset: str = setting("2027-06-30", "date on which v1 goes away", check=date_text, form=_DATE)


@dataclass(frozen=True, slots=True)
class Grpc:
    max_message: int = setting(4 * 1024 * 1024, "largest gRPC message in bytes", 65536, 64 * 1024 * 1024)
    drain: Seconds = setting(Seconds(3), "time for calls in progress when stopping", 0, 300)
    reflection: str = setting(
        "auto",
        "health, reflection and channelz without credential: on, off, or auto (on loopback only)",
        choices=("auto", "on", "off"),
    )
    max_concurrent: int = setting(2000, "calls in progress a process before it refuses more", 1, 100000)


@dataclass(frozen=True, slots=True)
class Auth:
    issuer: str = setting("bas", "`iss` of caller tokens")
    audience: str = setting("bas", "`aud` of caller tokens")
    keys: str = setting("", "JWKS file of the signing keys; empty is keys.json in the data folder")
    leeway: Seconds = setting(Seconds(5), "clock difference tolerated in exp, nbf and iat", 0, 300)
    max_ttl: Seconds = setting(Seconds(30 * 86400), "longest life of a caller token", 1, 366 * 86400)
    verified_cache: int = setting(10000, "verified tokens remembered", 0, 1000000)


@dataclass(frozen=True, slots=True)
class Redis:
    url: str = setting("", "redis://, rediss:// or unix:// URL; empty is the embedded Valkey", secret=True)
    op_timeout: Seconds = setting(Seconds(0.010), "time for one cache operation", 0.001, 10)
    connect_timeout: Seconds = setting(Seconds(0.250), "time to connect", 0.01, 30)
    pool: int = setting(64, "connections at most", 1, 64)
    pool_wait: Seconds = setting(Seconds(0.020), "time to wait for a free connection", 0, 1)


@dataclass(frozen=True, slots=True)
class Store:
    url: str = setting(
        "", "sqlite:///path or firestore://project/database; empty is one SQLite file a service in the data folder"
    )
    read_timeout: Seconds = setting(Seconds(1.0), "time for one store read", 0.01, 60)
    write_timeout: Seconds = setting(Seconds(2.0), "time for one store commit", 0.01, 60)
    retries: int = setting(2, "retries of one store operation at most", 0, 2)


@dataclass(frozen=True, slots=True)
class CacheTtl:
    session_ttl: Seconds = setting(Seconds(1800), "longest life of a cached session", 1, 1800)
    profile_ttl: Seconds = setting(Seconds(60), "greatest age of a cached user profile", 1, 60)
    device_ttl: Seconds = setting(Seconds(45), "life of a cached device", 1, 60)
    list_ttl: Seconds = setting(Seconds(30), "life of a cached first page of devices", 1, 60)
    count_ttl: Seconds = setting(Seconds(30), "life of a cached device count", 1, 60)
    telemetry_ttl: Seconds = setting(Seconds(30), "life of a telemetry snapshot", 1, 3600)
    negative_ttl: Seconds = setting(Seconds(3), "life of a cached absence", 0.1, 30)
    lease_ttl: Seconds = setting(Seconds(5), "life of a fill lease; longer than the longest load", 1, 300)
    jitter: float = setting(0.10, "share by which every TTL is varied, both ways", 0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Breaker:
    failures: int = setting(5, "failures within the window that open a breaker", 1, 10000)
    window: Seconds = setting(Seconds(30), "rolling window in which failures count", 0.1, 3600)
    half_open_after: Seconds = setting(Seconds(15), "time until an open breaker probes", 0.1, 3600)
    probes: int = setting(2, "calls that a half-open breaker lets through at a time", 1, 100)
    share: float = setting(
        0.01, "failures as a share of the calls in which they fell, at least, for a breaker to open", 0.0, 1.0
    )


@dataclass(frozen=True, slots=True)
class Retry:
    attempts: int = setting(2, "retries of one call at most", 0, 2)
    share: float = setting(0.2, "retries as a share of the calls of the last 10 s, at most", 0.0, 1.0)
    floor: int = setting(3, "retries within 10 s that are always allowed", 0, 1000)
    backoff: Seconds = setting(
        Seconds(0.025), "first wait at most; each further one twice that, all by chance", 0.001, 10
    )


@dataclass(frozen=True, slots=True)
class Deadline:
    default: Seconds = setting(Seconds(0.5), "deadline of a call whose RPC declares none", 0.01, 60)
    margin: Seconds = setting(Seconds(0.010), "least part of a deadline kept back for the answer", 0, 1)
    stretch: float = setting(
        1.0, "what the deadlines that RPCs declare are multiplied by: for a machine too slow for them", 1.0, 1000.0
    )


@dataclass(frozen=True, slots=True)
class Limits:
    rate: float = setting(500.0, "requests a second per tenant and API version", 0.1, 1e6)
    burst: int = setting(1000, "burst per tenant and API version", 1, 10_000_000)
    policies: str = setting("", "TOML file with limits of single tenants; read again when it changes")
    replicas: int = setting(1, "processes of a service that share a tenant's limit while Redis is away", 1, 10_000)
    tenants: int = setting(10_000, "tenants remembered at once", 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Shed:
    lag: Seconds = setting(Seconds(0.010), "event-loop lag above which fewer calls are admitted", 0.001, 10)
    after: Seconds = setting(Seconds(0.100), "time for which the lag lasts before that", 0.01, 60)
    enabled: bool = setting(True, "whether calls are refused under overload")


@dataclass(frozen=True, slots=True)
class Outbox:
    poll_interval: Seconds = setting(Seconds(1.0), "time between two looks for side effects left undelivered", 0.05, 60)
    batch: int = setting(200, "side effects read at once", 1, 1000)
    attempts: int = setting(10, "refusals after which a side effect is parked", 1, 1000)
    longest_wait: Seconds = setting(Seconds(15), "longest time between two tries", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Devices(Endpoint):
    port: int = _port(50053, "the devices service's gRPC server")
    heartbeat_interval: Seconds = setting(Seconds(30), "interval at which devices are told to send heartbeats", 1, 3600)
    offline_after: Seconds = setting(Seconds(90), "silence after which a device is offline", 1, 86400)
    flush_interval: Seconds = setting(
        Seconds(60), "least time between two store writes of one device's last_seen_time", 1, 3600
    )
    sweep_interval: Seconds = setting(Seconds(5), "time between two looks for devices that went silent", 0.1, 300)


@dataclass(frozen=True, slots=True)
class Sessions(Endpoint):
    port: int = _port(50051, "the sessions service's gRPC server")
    idle_ttl: Seconds = setting(
        Seconds(1800), "time without use after which a session ends, unless it says", 1, 34560000
    )
    idle_max: Seconds = setting(Seconds(34560000), "longest time without use that a session may ask for", 1, 34560000)
    absolute_ttl: Seconds = setting(Seconds(86400), "age at which a session ends, unless it says", 1, 34560000)
    absolute_max: Seconds = setting(Seconds(34560000), "greatest age that a session may ask for", 1, 34560000)
    seen_step: Seconds = setting(Seconds(60), "least time between two store writes of one session's use", 1, 3600)
    grace: Seconds = setting(Seconds(30), "time in which an exchanged token can be exchanged again", 1, 300)
    max_per_user: int = setting(0, "sessions a user may have at once; 0 is any number", 0, 200)
    at_limit: str = setting(
        "reject",
        "what becomes of one session too many: it is refused, or displaces the oldest",
        choices=("reject", "displace"),
    )
    revoked_kept: Seconds = setting(Seconds(86400), "time for which a revoked session can still be read", 0, 34560000)
    cleanup_interval: Seconds = setting(Seconds(60), "time between two clean-ups of ended sessions", 1, 86400)
    cleanup_batch: int = setting(500, "sessions removed by one clean-up, unless it says", 1, 10000)


@dataclass(frozen=True, slots=True)
class Users(Endpoint):
    port: int = _port(50052, "the users service's gRPC server")


@dataclass(frozen=True, slots=True)
class Audit(Endpoint):
    port: int = _port(50054, "the audit service's gRPC server")
    recent_cache: bool = setting(False, "whether RecentEntries may be answered from the cache")
    recent_ttl: Seconds = setting(Seconds(15), "greatest age of a cached answer of RecentEntries", 1, 20)
    sequence_interval: Seconds = setting(Seconds(0.25), "longest time until a pending entry is sequenced", 0.01, 60)
    sequence_batch: int = setting(256, "entries sequenced in one commit", 1, 400)
    checkpoint_interval: Seconds = setting(Seconds(10), "longest time from an entry to its checkpoint", 0.1, 3600)
    refusals_interval: Seconds = setting(Seconds(60), "time for which refusals are counted into one entry", 0.1, 3600)
    retention: Seconds = setting(Seconds(0), "age at which entries are dropped to their hashes; 0 is never", 0, 3.2e9)


@dataclass(frozen=True, slots=True)
class Events(Endpoint):
    port: int = _port(50055, "the events service's gRPC server")
    log_url: str = setting("", "Redis URL of the event log; empty is BAS_REDIS_URL", secret=True)
    log_timeout: Seconds = setting(Seconds(0.250), "time for one operation on the log", 0.01, 10)
    shards: int = setting(16, "streams that the tenants' logs are spread over; fixed for the life of a log", 1, 1024)
    retention_count: int = setting(10_000, "events kept of each tenant", 1, 10_000_000)
    retention_bytes: int = setting(32 * 1024 * 1024, "bytes of events kept of each tenant", 65536, 2**40)
    retention_age: Seconds = setting(Seconds(86400), "time for which events are kept", 1, 366 * 86400)
    dedupe_window: Seconds = setting(Seconds(7200), "time in which an event published again is dropped", 1, 7 * 86400)
    heartbeat: Seconds = setting(Seconds(15), "longest silence of a stream", 0.1, 20)
    queue_events: int = setting(256, "events that wait for one reader at most", 1, 100_000)
    queue_bytes: int = setting(1024 * 1024, "bytes that wait for one reader at most", 65536, 256 * 1024**2)
    ring: int = setting(4096, "newest events of a shard kept in memory", 16, 1_000_000)
    tenant_streams: int = setting(1000, "streams of one tenant at once, in one process", 1, 1_000_000)
    publish_rate: float = setting(5000.0, "events a second that one tenant may publish", 0.1, 1e7)
    publish_bytes: int = setting(16 * 1024 * 1024, "bytes of events a second that one tenant may publish", 65536, 2**40)


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
    retry: Retry = field(default_factory=Retry)
    deadline: Deadline = field(default_factory=Deadline)
    shed: Shed = field(default_factory=Shed)
    outbox: Outbox = field(default_factory=Outbox)
    limits: Limits = field(default_factory=Limits)
    sessions: Sessions = field(default_factory=Sessions)
    users: Users = field(default_factory=Users)
    devices: Devices = field(default_factory=Devices)
    audit: Audit = field(default_factory=Audit)
    events: Events = field(default_factory=Events)
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variable name → `file` or `environment`; a name that is absent has its default."""


_SECTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {section.name: section.default_factory for section in fields(Config) if section.name != "sources"}
)

SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {row.variable: row for name, kind in _SECTIONS.items() for row in rows_of(name, kind)}
)
"""Variable name → its description, in the order of `Config`."""


def load(environ: Mapping[str, str]) -> Config:
    """The configuration that `environ` (and the file it names) describes. Raises ConfigError."""
    given: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for row, value, source in read(environ, SETTINGS):
        given.setdefault(row.section, {})[row.name] = value
        sources[row.variable] = source
    sections = {name: _SECTIONS[name](**values) for name, values in given.items()}
    return Config(**sections, sources=MappingProxyType(sources))
