"""Time limits of what a test is not about, so long that a busy machine does not reach them. What a limit does when it is
reached has tests of its own, each with a limit of its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chassis.config import Redis, Seconds, Store

CALL: Final = 60.0
"""Seconds that a gRPC call asks for; it gets its RPC's longest deadline."""
HEADERS: Final[Mapping[str, str]] = MappingProxyType({"request-timeout": "60s"})
"""The same over HTTP."""
CLIENT: Final = 90.0
"""Seconds that an HTTP client waits: the server is to be the first to give up."""
STORE: Final = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


def cache_at(url: str, op_timeout: float = 10.0) -> Redis:
    """A cache that is waited for, unless it is gone. `op_timeout` is for tests in which it stalls."""
    return Redis(url=url, op_timeout=Seconds(op_timeout), connect_timeout=Seconds(10), pool_wait=Seconds(1))
