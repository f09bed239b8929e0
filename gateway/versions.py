"""The API's versions: which are served, which is meant, and what a deprecated one says of itself.

`/api/v2/devices` names its version. `/api/devices` has the one of the request's `API-Version` header, and the default
without it. Sources: RFC 9745 (Deprecation), RFC 8594 (Sunset), RFC 5829 (successor-version).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from chassis.errors import ApiError, Code
from gateway.problems import Headers, HttpError
from gateway.transcoding.routes import API_PREFIX, RouteTable

DEFAULT: Final = "v2"
_NAMED: Final = re.compile(r"v[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retirement:
    """A version on its way out: deprecated since, gone on (both aware), replaced by."""

    deprecated: datetime
    sunset: datetime
    successor: str


class Version:
    """One served version. `headers` go on every answer of it."""

    __slots__ = ("_retirement", "headers", "name", "routes")

    def __init__(self, name: str, routes: RouteTable, retirement: Retirement | None = None) -> None:
        self.name = name
        self.routes = routes
        self._retirement = retirement
        self.headers: Headers = [(b"api-version", name.encode())]
        if retirement is not None:
            self.headers += [
                (b"deprecation", b"@%d" % int(retirement.deprecated.timestamp())),
                (b"sunset", format_datetime(retirement.sunset, usegmt=True).encode()),
            ]

    def headers_at(self, path: str) -> Headers:
        """The headers of an answer at `path`, relative to the version."""
        if self._retirement is None:
            return self.headers
        link = f'<{API_PREFIX}{self._retirement.successor}{path}>; rel="successor-version"'
        return [*self.headers, (b"link", link.encode("ascii", "replace"))]


class Versions:
    """The versions that this deployment serves, by name."""

    def __init__(self, versions: Iterable[Version], default: str = DEFAULT) -> None:
        self._versions: Mapping[str, Version] = {version.name: version for version in versions}
        self.default = self._versions[default]

    def __iter__(self) -> Iterator[Version]:
        return iter(self._versions.values())

    def resolve(self, path: str, header: str) -> tuple[Version, str]:
        """The version that a raw path `/api/…` and the `API-Version` header mean, and the path relative to it. Raises
        ApiError: 404 for an unknown one in the path, 400 in the header, both naming those there are."""
        rest = path[len(API_PREFIX) - 1 :]
        end = rest.find("/", 1)
        first = rest[1:end] if end > 0 else rest[1:]
        named = self._versions.get(first)
        if named is not None:
            return named, rest[len(first) + 1 :] or "/"
        if _NAMED.fullmatch(first):
            message = f"There is no version {first[:16]!r}; there is {self._listed()}."
            raise HttpError(404, Code.NOT_FOUND, "API_VERSION_UNKNOWN", message)
        if not header:
            return self.default, rest
        version = self._versions.get(header)
        if version is None:
            message = f"API-Version: {header[:16]!r} is not known; there is {self._listed()}."
            raise ApiError(Code.INVALID_ARGUMENT, "API_VERSION_UNKNOWN", message)
        return version, rest

    def _listed(self) -> str:
        return ", ".join(sorted(self._versions))
