"""The services behind the gateway: one client each, calls in bytes and out in bytes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from chassis.channel import Client
from chassis.errors import ApiError
from chassis.interceptors.stream import StreamCall
from chassis.policies import Policy

Metadata = tuple[tuple[str, str], ...]
UnaryCall = Callable[[bytes, float, Metadata], Awaitable[bytes]]
"""(request, seconds, metadata) → response. Raises ApiError, whatever went wrong; cancelling it cancels the call."""

_PROBE: Final = Policy(scope="")


class Upstream(Protocol):
    """One service."""

    def unary(self, path: str, policy: Policy) -> UnaryCall:
        """The call of the RPC at a gRPC path, to be made as its policy says."""
        ...

    def stream(self, path: str) -> StreamCall:
        """The call of the RPC at a gRPC path that answers with a stream."""
        ...

    async def ready(self, service: str, seconds: float) -> bool:
        """Whether the service says, within `seconds`, that it serves (grpc.health.v1)."""
        ...

    async def close(self) -> None: ...


class ServiceUpstream:
    """An upstream by a client that it then owns. `credential` is what health checks are sent with: a service that
    others than this machine can reach answers them to callers only."""

    def __init__(self, client: Client, credential: Callable[[], Metadata] = lambda: ()) -> None:
        self._client = client
        self._credential = credential
        self._check = client.unary("/grpc.health.v1.Health/Check", _PROBE, guarded=False)
        self._serves = False

    def unary(self, path: str, policy: Policy) -> UnaryCall:
        return self._client.unary(path, policy)

    def stream(self, path: str) -> StreamCall:
        return self._client.stream(path)

    async def ready(self, service: str, seconds: float) -> bool:
        served, self._serves = self._serves, await self._is_serving(service, seconds)
        if self._serves and not served:
            # Started again: nobody has to wait for the breaker's own time. Only then: one that says it serves, and does not,
            # is probed no more often than others.
            self._client.heard()
        return self._serves

    async def close(self) -> None:
        await self._client.close()

    async def _is_serving(self, service: str, seconds: float) -> bool:
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        try:
            answer = health_pb2.HealthCheckResponse.FromString(await self._check(request, seconds, self._credential()))
        except (ApiError, DecodeError):
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


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

    def unary(self, service: str, path: str, policy: Policy) -> UnaryCall | None:
        """None when the service is not part of this deployment."""
        upstream = self._upstreams.get(service)
        return None if upstream is None else upstream.unary(path, policy)

    def stream(self, service: str, path: str) -> StreamCall | None:
        """As `unary`."""
        upstream = self._upstreams.get(service)
        return None if upstream is None else upstream.stream(path)

    async def close(self) -> None:
        for upstream in self._upstreams.values():
            await upstream.close()
