"""One browser's end of a stream. There may be ten thousand, so each holds little."""

from collections.abc import Callable
from typing import Final

from gateway.sse.conflation import Conflation
from gateway.sse.port import Renew, Transport

SLOTS: Final = 8
"""Groups in which connections get their heartbeats, one group after the other."""


class Connection:
    """`expires` is the end of its credential, in seconds since the epoch; `session` is (tenant, session id), None without
    one, and `renew` asks anew about it. `ended`: nothing may be written any more. `conflation` holds what waits for a
    connection that is behind and wants only the newest."""

    __slots__ = (
        "conflates",
        "conflation",
        "ended",
        "expires",
        "renew",
        "session",
        "slot",
        "transport",
        "waiting",
        "write",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        slot: int,
        expires: float,
        conflates: bool = False,
        session: tuple[str, str] | None = None,
        renew: Renew | None = None,
    ) -> None:
        self.transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.waiting: Callable[[], int] = transport.get_write_buffer_size
        self.slot = slot
        self.expires = expires
        self.conflates = conflates
        self.session = session
        self.renew = renew
        self.ended = False
        self.conflation: Conflation | None = None

    def is_over(self) -> bool:
        """`ended`, for those who look again after they waited."""
        return self.ended
