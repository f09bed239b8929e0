"""The gateway's own metrics; the routes' templates, not their paths, are the labels."""

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Histogram

from chassis.telemetry.metrics import Metrics

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measures:
    """Requests and seconds; label children are found once and kept: their number is bounded by routes and statuses."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests: Counter = metrics.counter(
            "bas_gateway_requests", "Requests answered by the gateway.", ("route", "method", "status")
        )
        self._seconds: Histogram = metrics.histogram(
            "bas_gateway_seconds", "Time from the first byte of a request to its answer.", ("route", "method")
        )
        self._bound: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        bound = self._bound.get(key)
        if bound is None:
            name = method if method in _METHODS else "other"
            bound = (self._requests.labels(route, name, str(status)).inc, self._seconds.labels(route, name).observe)
            if name != "other":
                self._bound[key] = bound
        bound[0]()
        bound[1](seconds)
