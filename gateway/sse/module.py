"""Wiring: upstream, keys and settings in; who serves the event streams, by the path of the RPC, out."""

from collections.abc import Callable, Mapping
from typing import Final

from bas.events.v2.events_service_pb2 import DESCRIPTOR
from chassis import policies
from chassis.clock import Clock
from chassis.config import Config
from chassis.telemetry.metrics import Metrics
from gateway.sessions import Issue
from gateway.sse.handler import EventStreams
from gateway.sse.hub import Hub
from gateway.sse.measures import StreamMeasures
from gateway.sse.passes import LIFE, Passes
from gateway.sse.port import StreamHandler
from gateway.upstream import Upstream

SERVICE: Final = "events"
_METHODS: Final = DESCRIPTOR.services_by_name["EventService"].methods_by_name
SUBSCRIBE_PATH: Final = policies.path(_METHODS["SubscribeEvents"])


def event_streams(
    config: Config,
    *,
    upstream: Upstream,
    issue: Issue,
    clock: Clock,
    metrics: Metrics,
    random: Callable[[], float],
    new_trace: Callable[[], str],
) -> Mapping[str, StreamHandler]:
    """`upstream` is the events service; `random` gives [0, 1)."""
    life = min(LIFE, config.auth.max_ttl)
    listing = _METHODS["ListEvents"]
    measures = StreamMeasures(metrics)
    hub = Hub(
        config.gateway,
        subscribe=upstream.stream(SUBSCRIBE_PATH),
        list_events=upstream.unary(policies.path(listing), policies.of_method(listing)),
        credential=Passes(issue, clock, life, new_trace),
        life=life,
        clock=clock,
        random=random,
        measures=measures,
    )
    return {SUBSCRIBE_PATH: EventStreams(hub, measures)}
