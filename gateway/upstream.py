"""The services behind the gateway: one channel each, calls in bytes and out in bytes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2

from chassis.interceptors.status import error_of

Metadata = tuple[tuple[str, str], ...]
UnaryCall = Callable[[bytes, float, Metadata], Awaitable[bytes]]
"""(request, seconds, metadata) → response. Raises ApiError, whatever went wrong; cancelling it cancels the call."""


class Upstream(Protocol):
    """One service."""

    def unary(self, path: str) -> UnaryCall:
        """The call of the RPC at a gRPC path."""
        ...

    async def ready(self, service: str, seconds: float) -> bool:
        """Whether the service says, within `seconds`, that it serves (grpc.health.v1)."""
        ...

    async def close(self) -> None: ...


class GrpcUpstream:
    """An upstream over a channel that it then owns. `credential` is what health checks are sent with: a service that
    others than this machine can reach answers them to callers only."""

    def __init__(self, channel: grpc.aio.Channel, credential: Callable[[], Metadata] = lambda: ()) -> None:
        self._channel = channel
        self._credential = credential
        self._check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def unary(self, path: str) -> UnaryCall:
        call: Callable[..., Awaitable[bytes]] = self._channel.unary_unary(path)

        async def invoke(request: bytes, seconds: float, metadata: Metadata) -> bytes:
            try:
                return await call(request, timeout=seconds, metadata=metadata)
            except grpc.aio.AioRpcError as failure:
                raise error_of(failure) from None

        return invoke

    async def ready(self, service: str, seconds: float) -> bool:
        try:
            request, metadata = health_pb2.HealthCheckRequest(service=service), self._credential()
            answer = await self._check(request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        await self._channel.close()


class Upstreams:
    """The upstreams of a deployment by service name (`devices`)."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams

    def __contains__(self, service: str) -> bool:
        return service in self._upstreams

    def names(self) -> list[str]:
        return sorted(self._upstreams)

    def __getitem__(self, service: str) -> Upstream:
        return self._upstreams[service]

    def unary(self, service: str, path: str) -> UnaryCall | None:
        """None when the service is not part of this deployment."""
        upstream = self._upstreams.get(service)
        return None if upstream is None else upstream.unary(path)

    async def close(self) -> None:
        for upstream in self._upstreams.values():
            await upstream.close()
