"""What one process can serve: every target of the platform, and where its parts are imported from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from chassis.config import Config, ConfigError, Endpoint
from launcher.failure import misuse
from launcher.probe import reachable

GATEWAY: Final = "gateway"

SERVICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sessions": "services.sessions.module",
        "users": "services.users.module",
        "devices": "services.devices.module",
        "audit": "services.audit.module",
        "events": "services.events.module",
    }
)
"""Service → the module whose `SPEC` builds it. A new service is one line here."""

PRESENT: Final = (*SERVICES, GATEWAY)
"""The targets of this release, in the order in which they are started."""

_METRICS_OFFSET: Final = 1000


@dataclass(frozen=True, slots=True)
class Address:
    """One TCP port that a target listens on, and the setting that changes it."""

    target: str
    purpose: str
    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The targets that were asked for, each once, in order. Raises Failure (2) for one that is not there."""
    targets = tuple(dict.fromkeys(names))
    for name in targets:
        if name not in PRESENT:
            raise misuse(f"{name!r} is not a target. There are: {', '.join(PRESENT)}.")
    return targets


def endpoint(config: Config, service: str) -> Endpoint:
    """The section of a service."""
    section = getattr(config, service)
    if not isinstance(section, Endpoint):
        raise TypeError(f"{service} has no endpoint section")
    return section


def metrics_port(section: Endpoint) -> int:
    """The port of a service's metrics, with -1 resolved."""
    return section.port + _METRICS_OFFSET if section.metrics_port < 0 else section.metrics_port


def key_path(config: Config) -> Path:
    """`BAS_AUTH_KEYS`, or keys.json in the data folder."""
    return Path(config.auth.keys) if config.auth.keys else Path(config.data.dir) / "keys.json"


def address_of(config: Config, service: str) -> str:
    """host:port at which others reach a service."""
    section = endpoint(config, service)
    return section.address or f"{reachable(section.host)}:{section.port}"


def addresses(config: Config, targets: Iterable[str] = PRESENT) -> list[Address]:
    """Every port that `targets` listen on; the gateway's serves its metrics, too."""
    found = []
    for target in targets:
        if target == GATEWAY:
            found.append(Address(target, "HTTP", config.gateway.host, config.gateway.port, "BAS_GATEWAY_PORT"))
            continue
        section, prefix = endpoint(config, target), f"BAS_{target.upper()}"
        found.append(Address(target, "gRPC", section.host, section.port, f"{prefix}_PORT"))
        found.append(Address(target, "metrics", section.host, metrics_port(section), f"{prefix}_METRICS_PORT"))
    return found


def deployed(config: Config) -> tuple[str, ...]:
    """The services behind the gateway; RPCs of the others answer 501. Raises ConfigError for one that is not there."""
    unknown = [name for name in config.gateway.services if name not in SERVICES]
    if unknown:
        raise ConfigError(
            f"BAS_GATEWAY_SERVICES names {unknown[0]!r}, which is not a service of this release: {', '.join(SERVICES)}."
        )
    return config.gateway.services or tuple(SERVICES)
