"""Latencies per operation, from the histograms of a process's metrics."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_SUFFIX: Final = "_seconds"
_ENDED_WITH: Final = frozenset({"grpc_code", "code", "outcome", "status"})
"""Labels that say how an operation ended: its latencies are shown together."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One operation: how often it was done, and seconds within which 95 and 99 of 100 were; None where nothing is
    known but that it took longer than the highest bucket."""

    operation: str
    count: int
    p95: float | None
    p99: float | None


def latencies(exposition: str) -> list[Latency]:
    """Every histogram named `…_seconds`, by its labels, the busiest first; those that saw nothing are left out."""
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(exposition):
        if family.type != "histogram" or not family.name.endswith(_SUFFIX):
            continue
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                labels = {name: text for name, text in sample.labels.items() if name not in _ENDED_WITH}
                bound = float(labels.pop("le"))
                buckets[_operation(family.name, labels)][bound] += sample.value
    found = [_latency(operation, sorted(counts.items())) for operation, counts in buckets.items()]
    return sorted((row for row in found if row.count), key=lambda row: (-row.count, row.operation))


def gauges(exposition: str, name: str) -> dict[str, float]:
    """The samples of one gauge, by their labels."""
    return {
        " ".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition)
        if family.name == name
        for sample in family.samples
    }


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """The value below which `share` of the observations lie, as Prometheus' histogram_quantile estimates it: linear
    within a bucket. `buckets` are (upper bound, cumulative count), ascending, the last unbounded."""
    total = buckets[-1][1] if buckets else 0.0
    if total == 0:
        return None
    rank = share * total
    low, below = 0.0, 0.0
    for bound, cumulative in buckets:
        if cumulative >= rank and cumulative > below:
            return None if math.isinf(bound) else low + (bound - low) * (rank - below) / (cumulative - below)
        low, below = bound, cumulative
    return None


def _operation(family: str, labels: dict[str, str]) -> str:
    if "grpc_service" in labels and "grpc_method" in labels:
        called = f"{labels['grpc_service'].rpartition('.')[2]}/{labels['grpc_method']}"
        return f"calling {called}" if family.startswith("grpc_client") else called
    if "route" in labels and "method" in labels:
        return f"{labels['method']} {labels['route']}"
    return " ".join(text for text in labels.values() if text) or family.removesuffix(_SUFFIX)


def _latency(operation: str, buckets: list[tuple[float, float]]) -> Latency:
    return Latency(
        operation=operation,
        count=round(buckets[-1][1]),
        p95=quantile(0.95, buckets),
        p99=quantile(0.99, buckets),
    )
