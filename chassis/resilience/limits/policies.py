"""What each tenant may ask for: the defaults of the configuration, and a TOML file of those that have limits of their own.

In it, `[tenants.acme]` has `rate` (requests a second) and `burst` (that many at once) of a tenant for all versions of the
API, and `[tenants.acme.v2]` those of one version. What is left out is as in the table above, or as configured.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from chassis.config import SETTINGS, ConfigError, Limits

_TENANTS: Final = "tenants"
_BYTES: Final = 16 * 1024 * 1024
_LONGEST: Final = 128


@dataclass(frozen=True, slots=True)
class Policy:
    """Requests a second, and how many may come at once after a time without any."""

    rate: float
    burst: int


class Policies:
    """The policy of every tenant."""

    def __init__(self, default: Policy, tenants: Mapping[tuple[str, str], Policy] = MappingProxyType({})) -> None:
        """`tenants` is by tenant and API version (`v2`), or "" for all versions without one of their own."""
        self._default = default
        self._tenants = tenants

    def __len__(self) -> int:
        return len(self._tenants)

    def of(self, tenant: str, version: str) -> Policy:
        tenants = self._tenants
        if not tenants:
            return self._default
        return tenants.get((tenant, version)) or tenants.get((tenant, "")) or self._default


def default_of(limits: Limits) -> Policy:
    return Policy(limits.rate, limits.burst)


def parse(raw: bytes, default: Policy) -> Policies:
    """The policies of a file. What a table leaves out is as in the one above it. Raises ConfigError naming what is wrong;
    one wrong number makes the whole file wrong."""
    if len(raw) > _BYTES:
        raise ConfigError(f"it has {len(raw)} bytes: {_BYTES} are accepted")
    try:
        document = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise ConfigError(f"it is no TOML: {problem}") from None
    tenants = document.pop(_TENANTS, {})
    if document or not isinstance(tenants, dict):
        raise ConfigError(f"{next(iter(document), _TENANTS)!r} is not accepted: tables [tenants.<tenant>] are")
    found: dict[tuple[str, str], Policy] = {}
    for tenant, table in tenants.items():
        if not 0 < len(tenant) <= _LONGEST or not isinstance(table, dict):
            raise ConfigError(f"tenants.{tenant} is not accepted: a table with rate and burst is")
        versions = {name: value for name, value in table.items() if isinstance(value, dict)}
        numbers = {name: value for name, value in table.items() if name not in versions}
        own = found[tenant, ""] = _policy(f"tenants.{tenant}", numbers, default)
        for version, values in versions.items():
            if not (version[:1] == "v" and version[1:].isdecimal() and version.isascii()):
                raise ConfigError(f"tenants.{tenant}.{version} is not accepted: a version such as v2 is")
            found[tenant, version] = _policy(f"tenants.{tenant}.{version}", values, own)
    return Policies(default, found)


def _policy(where: str, numbers: Mapping[str, Any], above: Policy) -> Policy:
    for name, value in numbers.items():
        row = SETTINGS.get(f"BAS_LIMITS_{name.upper()}") if name in ("rate", "burst") else None
        if row is None or row.bounds is None:
            raise ConfigError(f"{where}.{name} is not accepted: rate and burst are")
        fits = type(value) in ((int, float) if name == "rate" else (int,))
        if not fits or not row.bounds.low <= value <= row.bounds.high:
            raise ConfigError(f"{where}.{name} = {value!r} is not accepted: {row.accepted()}")
    return Policy(float(numbers.get("rate", above.rate)), int(numbers.get("burst", above.burst)))
