"""What is counted of event streams."""

from typing import Final

from prometheus_client import Counter, Gauge

from chassis.telemetry.metrics import Metrics

LIVE: Final = "live"
RING: Final = "ring"
REPLAY: Final = "replay"


class StreamMeasures:
    """The instruments, found once."""

    __slots__ = ("bytes", "connections", "ended", "frames", "gaps", "refused", "resumed", "slow", "upstreams")

    def __init__(self, metrics: Metrics) -> None:
        self.connections: Gauge = metrics.gauge("bas_gateway_streams", "Event streams that are open.")
        self.upstreams: Gauge = metrics.gauge("bas_gateway_stream_upstreams", "Streams that are followed upstream.")
        self.frames: Counter = metrics.counter("bas_gateway_stream_frames", "Events and gaps written to event streams.")
        self.bytes: Counter = metrics.counter("bas_gateway_stream_bytes", "Bytes of them.")
        self.slow: Counter = metrics.counter(
            "bas_gateway_stream_slow", "Event streams found to be too slow.", ("policy",)
        )
        self.gaps: Counter = metrics.counter("bas_gateway_stream_gaps", "Gaps announced on event streams.")
        self.refused: Counter = metrics.counter("bas_gateway_streams_refused", "Event streams ended at their start.")
        self.ended: Counter = metrics.counter(
            "bas_gateway_streams_ended", "Event streams ended by the gateway.", ("reason",)
        )
        self.resumed: Counter = metrics.counter(
            "bas_gateway_streams_resumed", "Event streams begun, by where their first events came from.", ("source",)
        )
