"""Time limits of what a test is not about, so long that a busy machine does not reach them. What a limit does when it is
reached has tests of its own, each with a limit of its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chassis.config import Deadline, Redis, Seconds, Store

CALL: Final = 60.0
"""Seconds that a gRPC call asks for; it gets its RPC's longest deadline, stretched by `DEADLINE`."""
HEADERS: Final[Mapping[str, str]] = MappingProxyType({"request-timeout": "60s"})
"""The same over HTTP."""
CLIENT: Final = 90.0
"""Seconds that an HTTP client waits: the server is to be the first to give up."""
DEADLINE: Final = Deadline(stretch=60.0)
"""For who serves and who calls: a default of 100 ms is 6 s, a longest of a second is a minute."""
STORE: Final = Store(read_timeout=Seconds(30), write_timeout=Seconds(30))


def cache_at(url: str, op_timeout: float = 10.0) -> Redis:
    """A cache that is waited for, unless it is gone. `op_timeout` is for tests in which it stalls."""
    return Redis(url=url, op_timeout=Seconds(op_timeout), connect_timeout=Seconds(10), pool_wait=Seconds(1))


PLATFORM: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BAS_DEADLINE_STRETCH": "60",
        "BAS_REDIS_CONNECT_TIMEOUT": "5s",
        "BAS_REDIS_OP_TIMEOUT": "5s",
        "BAS_STORE_READ_TIMEOUT": "5s",
        "BAS_STORE_WRITE_TIMEOUT": "5s",
    }
)
"""All of that as settings of `bas up`. The stores' limits are within what a caller waits for, as some tests have a store
that hangs."""
