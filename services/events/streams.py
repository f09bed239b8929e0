"""What all streams of a process share: the limits of each, the wheel, the places for reads of the log, the metrics."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bas.events.v2.events_pb2 import GapReason
from chassis.clock import Clock
from chassis.telemetry.metrics import Metrics
from services.events.frames import Frame
from services.events.wheel import Wheel


class StreamMetrics:
    """How streams fare."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.subscribers = metrics.gauge("bas_events_subscribers", "Streams of events that are open.")
        self._delivered = metrics.counter("bas_events_delivered", "Events handed to streams to be written.")
        self._gaps = metrics.counter("bas_events_gaps", "Gaps that streams were told of, by reason.", ("reason",))
        self._slow = metrics.counter("bas_events_slow_disconnects", "Streams ended as their reader was too slow.")
        self._lag = metrics.histogram(
            "bas_events_delivery_seconds", "From an event's arrival from the log until a stream was handed it to write."
        )

    def deliver(self, frame: Frame) -> None:
        """A frame is handed out to be written."""
        self._delivered.inc()
        self._lag.observe(self._clock() - frame.taken)

    def gap(self, reason: GapReason.ValueType) -> None:
        self._gaps.labels(GapReason.Name(reason).removeprefix("GAP_REASON_").lower()).inc()

    def slow(self) -> None:
        self._slow.inc()


@dataclass(frozen=True, slots=True)
class Streams:
    """`heartbeat` is the longest silence in seconds; `reads` bounds how many streams read from the log at once; `random`
    draws from [0, 1)."""

    queue_events: int
    queue_bytes: int
    heartbeat: float
    clock: Clock
    wheel: Wheel
    reads: asyncio.Semaphore
    random: Callable[[], float]
    metrics: StreamMetrics
