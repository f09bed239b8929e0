"""The only maker of gRPC channels."""

import json
from collections.abc import Callable
from typing import Final

import grpc

from chassis.clock import Clock
from chassis.config import Deadline, Grpc, Retry
from chassis.http2.channel import Channel
from chassis.interceptors.client import Link, UnaryCall, unary
from chassis.interceptors.stream import StreamCall, stream
from chassis.policies import Policy
from chassis.resilience.breaker import AlwaysAdmit, Breaker, Guard
from chassis.resilience.lag import never_late
from chassis.resilience.retry import Retries
from chassis.telemetry.metrics import Metrics

_SERVICE_CONFIG: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
"""Neither a retry policy (it would multiply with ours) nor timeouts (they fire early)."""


def open_channel(address: str, config: Grpc) -> grpc.aio.Channel:
    """A channel to `host:port` (or any gRPC name): every address behind the name in turn, quick to come back after an
    outage, found dead within half a minute. To be made inside the event loop, and closed by whoever made it."""
    return grpc.aio.insecure_channel(
        address,
        options=(
            ("grpc.max_send_message_length", config.max_message),
            ("grpc.max_receive_message_length", config.max_message),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            # A window that grows by itself makes a stream that nobody reads cost 30 MB; this one, 0.3 MB.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.enable_retries", 1),  # transparent ones only: without a policy nothing else is retried
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.service_config", _SERVICE_CONFIG),
        ),
    )


class Client:
    """Calls of one other process, each through the client chain: unary ones over `chassis.http2`, a third of the CPU of
    grpc.aio's client; streams over a channel of `open_channel`, opened by the first. To be made inside the event loop."""

    def __init__(
        self,
        address: str,
        *,
        config: Grpc,
        deadline: Deadline,
        metrics: Metrics,
        clock: Clock,
        random: Callable[[], float],
        retry: Retry | None = None,
        guard: Guard | None = None,
        late: Callable[[float], bool] = never_late,
    ) -> None:
        """`guard` is the breaker of what is at `address`, `late` says whether this process's loop was held up after a
        time of the clock. Raises ValueError for an `address` that is not `host:port` or `unix:/path`."""
        self._channel = Channel(address, max_response=config.max_message, random=random)
        self._streams: grpc.aio.Channel | None = None
        self._address = address
        self._config = config
        self._deadline = deadline
        self._metrics = metrics
        self._clock = clock
        told = metrics.counter(
            "bas_client_retries", "Retries made, and those that the budget or the deadline forbade.", ("outcome",)
        )
        retries = Retries(retry or Retry(), clock, random, lambda outcome: told.labels(outcome).inc())
        self._link = Link(retries, guard or AlwaysAdmit(), late)
        self._guard = guard
        self._bare = Link(Retries(Retry(attempts=0), clock, random))

    def unary(self, path: str, policy: Policy, *, guarded: bool = True) -> UnaryCall:
        """The unary method at `path` (`/bas.devices.v2.DeviceService/GetDevice`); keep it, it is made to be called
        often. What is not `guarded` passes the breaker by and is not repeated: it asks how the other one is."""
        return unary(
            self._channel,
            path,
            policy,
            metrics=self._metrics,
            clock=self._clock,
            deadline=self._deadline,
            link=self._link if guarded else self._bare,
        )

    def heard(self) -> None:
        """The other one has been heard of again by an unguarded call: if its breaker is open, the next call is a probe."""
        if isinstance(self._guard, Breaker):
            self._guard.look_again()

    def stream(self, path: str) -> StreamCall:
        """The method at `path` that answers with a stream; keep it, as above."""
        return stream(self._streaming, path, metrics=self._metrics, clock=self._clock)

    async def close(self) -> None:
        """Cancel what is in progress and close the connections."""
        await self._channel.close()
        if self._streams is not None:
            await self._streams.close()

    def _streaming(self) -> grpc.aio.Channel:
        if self._streams is None:
            self._streams = open_channel(self._address, self._config)
        return self._streams
