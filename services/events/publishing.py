"""Publications: checked, metered, appended."""

from bas.events.v2.events_service_pb2 import PublishEventsRequest, PublishEventsResponse
from chassis.telemetry.metrics import Metrics
from services.events import events as rules
from services.events.limits import PublishLimits
from services.events.port import EventLog


class Publisher:
    def __init__(self, log: EventLog, limits: PublishLimits, metrics: Metrics) -> None:
        self._log = log
        self._limits = limits
        counted = metrics.counter("bas_events_published", "Events that were published, by outcome.", ("outcome",))
        self._appended, self._duplicate = counted.labels("appended"), counted.labels("duplicate")

    async def publish(self, tenant: str, request: PublishEventsRequest) -> PublishEventsResponse:
        """Raises INVALID_ARGUMENT, RATE_LIMITED, EVENTS_UNAVAILABLE; after the last the events may be in the log, and to
        publish them again is harmless."""
        rules.check(request.events)
        self._limits.take(tenant, len(request.events), request.ByteSize())
        placed = await self._log.publish(tenant, request.events)
        response = PublishEventsResponse()
        furthest = placed[-1]
        for each in placed:
            response.results.add(sequence=str(each.position.sequence), cursor=each.cursor, duplicate=each.duplicate)
            (self._duplicate if each.duplicate else self._appended).inc()
            if each.position.sequence > furthest.position.sequence:
                furthest = each
        response.cursor = furthest.cursor
        return response
