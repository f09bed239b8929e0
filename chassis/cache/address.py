"""Where the cache is and how to enter, read from its URL."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import parse_url

from chassis.config import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """One server: a unix socket's path, or host and port. Printing it shows no credentials."""

    path: str = ""
    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = field(default="", repr=False)
    verify: bool = True

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises OSError when a certificate file cannot be read."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file or None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse(url: str) -> Address:
    """Read `redis://`, `rediss://` and `unix://` URLs with the query options of redis-py (`db`, `ssl_ca_certs`,
    `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs=none`). Raises ConfigError, which does not show the URL."""
    try:
        parts: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise ConfigError("BAS_REDIS_URL is not accepted: a redis://, rediss:// or unix:// URL.") from None
    return Address(
        path=parts.get("path", ""),
        host=parts.get("host") or "127.0.0.1",
        port=parts.get("port") or 6379,
        database=int(parts.get("db") or 0),
        username=parts.get("username") or "",
        password=parts.get("password") or "",
        tls=url.startswith("rediss://"),
        ca_file=parts.get("ssl_ca_certs", ""),
        certificate_file=parts.get("ssl_certfile", ""),
        key_file=parts.get("ssl_keyfile", ""),
        verify=parts.get("ssl_cert_reqs", "required") != "none",
    )
