"""A hub over an events service in memory, and browsers that are lists of bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bas.events.v2.events_service_pb2 import SubscribeEventsRequest
from chassis.clock import FakeClock
from chassis.config import Gateway
from chassis.telemetry.metrics import Metrics
from gateway.sse.connection import Connection
from gateway.sse.hub import Hub, canonical
from gateway.sse.measures import StreamMeasures
from gateway.sse.port import Renew
from gateway.upstream import Metadata
from tests.support.events import FakeEvents
from tests.support.sse import Dispatched, Parser

LONG = 4e9
"""A credential that does not end."""


@dataclass(eq=False)
class Browser:
    """A `Transport`. With `reads` off, what is written waits, and nothing of it is seen."""

    reads: bool = True
    parser: Parser = field(default_factory=Parser)
    waiting: bytearray = field(default_factory=bytearray)
    writes: int = 0
    closing: bool = False
    aborted: bool = False

    def write(self, data: bytes) -> None:
        assert not self.closing, "written to after its end"
        self.writes += 1
        self.waiting += data
        if self.reads:
            self.read()

    def read(self) -> None:
        self.parser.feed(bytes(self.waiting))
        self.waiting.clear()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    @property
    def events(self) -> list[Dispatched]:
        return self.parser.events

    def is_open(self) -> bool:
        return not self.closing

    def names(self) -> list[str]:
        return [each.name for each in self.events]


class Listening:
    """The hub, what is behind it, and the clock."""

    def __init__(self, events: FakeEvents | None = None, *, life: float = 3600.0, **config: Any) -> None:
        self.events = events or FakeEvents()
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.hub = Hub(
            Gateway(**config),
            subscribe=self.events.subscribe,
            list_events=self.events.list_events,
            credential=passes,
            life=life,
            clock=self.clock,
            random=lambda: 0.5,
            measures=StreamMeasures(self.metrics),
        )
        self.connections: dict[Browser, Connection] = {}

    async def join(
        self,
        cursor: str = "",
        *,
        types: Sequence[str] = (),
        tenant: str = "acme",
        browser: Browser | None = None,
        expires: float = LONG,
        conflates: bool = False,
        session: str = "",
        renew: Renew | None = None,
        entered: Callable[[], None] = lambda: None,
    ) -> Browser:
        """A browser that has caught up, or has ended."""
        stream, start = await self.hub.open(tenant, canonical(SubscribeEventsRequest(types=types)), cursor)
        browser = browser or Browser()
        connection = Connection(
            browser,
            slot=self.hub.next_slot(),
            expires=expires,
            conflates=conflates,
            session=(tenant, session) if session else None,
            renew=renew,
        )
        self.connections[browser] = connection
        self.hub.enter(connection, stream)
        entered()
        await self.hub.serve(connection, stream, start)
        return browser

    def value(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def passes(tenant: str) -> Metadata:
    return (("authorization", f"Bearer {tenant}"),)
