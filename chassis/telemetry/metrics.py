"""Prometheus metrics of one process, in a registry of its own: nothing global."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_T = TypeVar("_T", Counter, Gauge, Histogram)

LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds; dense below 50 ms, where the budgets are."""


class Metrics:
    """Makes each instrument once; asking again by the same name returns the one that exists."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        made = self._made.get(name) or Counter(name, documentation, labels, registry=self.registry)
        return self._keep(name, made, Counter)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        made = self._made.get(name) or Gauge(name, documentation, labels, registry=self.registry)
        return self._keep(name, made, Gauge)

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS
    ) -> Histogram:
        made = self._made.get(name) or Histogram(name, documentation, labels, buckets=buckets, registry=self.registry)
        return self._keep(name, made, Histogram)

    def operation(self, dependency: str, operation: str) -> "Callable[[float, str], None]":
        """A bound observer for one operation of one dependency (`store`, `cache`): call it with seconds and an outcome
        (`ok` or an error reason)."""
        seconds = self.histogram(
            "bas_dependency_seconds", "Time of an operation on a dependency.", ("dependency", "operation")
        ).labels(dependency, operation)
        outcomes = self.counter(
            "bas_dependency_operations",
            "Operations on a dependency by outcome.",
            ("dependency", "operation", "outcome"),
        )
        bound = {"ok": outcomes.labels(dependency, operation, "ok")}

        def observe(elapsed: float, outcome: str) -> None:
            seconds.observe(elapsed)
            child = bound.get(outcome)
            if child is None:
                child = bound[outcome] = outcomes.labels(dependency, operation, outcome)
            child.inc()

        return observe

    def _keep(self, name: str, made: object, kind: type[_T]) -> _T:
        if not isinstance(made, kind):
            raise TypeError(f"{name} exists already as a {type(made).__name__}")
        self._made[name] = made
        return made
