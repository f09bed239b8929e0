import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from chassis.telemetry.metrics import LATENCY_BUCKETS, Metrics
from launcher.latency import gauges, latencies, quantile


def exposition(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = [(1.0, 90.0), (2.0, 100.0), (math.inf, 100.0)]
    assert quantile(0.95, buckets) == pytest.approx(1.5)
    assert quantile(0.45, buckets) == pytest.approx(0.5)


def test_nothing_seen_or_all_above_the_highest_bucket_is_unknown() -> None:
    assert quantile(0.95, []) is None
    assert quantile(0.95, [(1.0, 0.0), (math.inf, 0.0)]) is None
    assert quantile(0.95, [(1.0, 0.0), (math.inf, 3.0)]) is None


@given(st.lists(st.floats(0.0, 9.9), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(seconds: list[float], share: float) -> None:
    bounds = (0.0, *LATENCY_BUCKETS)
    buckets = [(bound, float(sum(s <= bound for s in seconds))) for bound in (*LATENCY_BUCKETS, math.inf)]
    true = sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
    upper = next(bound for bound in LATENCY_BUCKETS if true <= bound)
    lower = bounds[bounds.index(upper) - 1]
    found = quantile(share, buckets)
    assert found is not None
    assert lower <= found <= upper + 1e-12


def test_operations_are_named_by_their_labels_and_outcomes_are_added_up() -> None:
    metrics = Metrics()
    handled = metrics.histogram("grpc_server_handling_seconds", "x", ("grpc_service", "grpc_method", "grpc_code"))
    for code in ("OK", "NOT_FOUND"):
        for _ in range(10):
            handled.labels("bas.devices.v2.DeviceService", "GetDevice", code).observe(0.002)
    handled.labels("bas.devices.v2.DeviceService", "ListDevices", "OK")
    metrics.operation("store", "get")(0.0002, "ok")
    rows = latencies(exposition(metrics))
    assert [(row.operation, row.count) for row in rows] == [("DeviceService/GetDevice", 20), ("store get", 1)]
    assert rows[0].p99 is not None
    assert 0.001 < rows[0].p99 <= 0.0025


def test_calls_made_and_routes_served_are_told_from_calls_answered() -> None:
    metrics = Metrics()
    metrics.histogram("grpc_client_handling_seconds", "x", ("grpc_service", "grpc_method")).labels(
        "bas.events.v2.EventService", "PublishEvents"
    ).observe(1)
    metrics.histogram("bas_gateway_seconds", "x", ("route", "method")).labels("/api/v2/devices", "GET").observe(1)
    assert {row.operation for row in latencies(exposition(metrics))} == {
        "calling EventService/PublishEvents",
        "GET /api/v2/devices",
    }


def test_histograms_of_other_units_are_left_out() -> None:
    metrics = Metrics()
    metrics.histogram("batch_size", "x", buckets=(1, 2)).observe(1)
    assert latencies(exposition(metrics)) == []


def test_gauges_by_label() -> None:
    metrics = Metrics()
    metrics.gauge("bas_breaker_state", "x", ("dependency",)).labels("store").set(2)
    assert gauges(exposition(metrics), "bas_breaker_state") == {"store": 2.0}
    assert gauges(exposition(metrics), "absent") == {}
