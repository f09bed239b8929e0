"""Metrics of calls under the usual gRPC names, with the children of each method bound once.

`grpc_server_started_total`, `grpc_server_handled_total{grpc_code}`, `grpc_server_handling_seconds`, and the same with
`grpc_client_`; labels `grpc_type`, `grpc_service`, `grpc_method`.
"""

from collections.abc import Callable
from typing import Final, Literal

from prometheus_client import Counter

from chassis.telemetry.metrics import Metrics

_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")


class MethodMetrics:
    """The instruments of one method, seen from one side."""

    __slots__ = ("_by_code", "_handled", "_labels", "observe", "started")

    def __init__(self, metrics: Metrics, side: Literal["server", "client"], path: str, kind: str) -> None:
        service, _, method = path.lstrip("/").rpartition("/")
        self._labels = (kind, service, method)
        began = metrics.counter(f"grpc_{side}_started_total", f"RPCs started on the {side}.", _LABELS)
        self._handled = metrics.counter(
            f"grpc_{side}_handled_total", f"RPCs completed on the {side}, by status.", (*_LABELS, "grpc_code")
        )
        seconds = metrics.histogram(
            f"grpc_{side}_handling_seconds", f"Time from start to end of an RPC on the {side}.", _LABELS
        )
        self._by_code: dict[str, Counter] = {}
        self.started: Callable[[], None] = began.labels(*self._labels).inc
        self.observe: Callable[[float], None] = seconds.labels(*self._labels).observe
        self.handled("OK", count=0)

    def handled(self, code: str, count: int = 1) -> None:
        """Count a completed call; `code` is a canonical name, of which there are 17."""
        child = self._by_code.get(code)
        if child is None:
            child = self._by_code[code] = self._handled.labels(*self._labels, code)
        child.inc(count)


def kind_of(*, client_streaming: bool, server_streaming: bool) -> str:
    """The `grpc_type` label."""
    if client_streaming:
        return "bidi_stream" if server_streaming else "client_stream"
    return "server_stream" if server_streaming else "unary"
