"""Health checking (grpc.health.v1) with a status per service."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2

from chassis.errors import ApiError, Code

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The servicer. Every service begins NOT_SERVING; the empty name is the whole process.

    `Watch` ends when the process stops, after it has said NOT_SERVING: an open watch must not hold up a shutdown.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._status = dict.fromkeys(("", *services), NOT_SERVING)
        self._changed = asyncio.Event()
        self._stopping = False

    def set_all(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        """Give every service and the process one status. Without effect once the process is stopping."""
        if not self._stopping:
            self._status = dict.fromkeys(self._status, status)
            self._announce()

    def stop(self) -> None:
        """Nothing serves any more, for good."""
        self.set_all(NOT_SERVING)
        self._stopping = True
        self._announce()

    async def Check(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:  # noqa: N802
        status = self._status.get(request.service)
        if status is None:
            raise ApiError(Code.NOT_FOUND, "SERVICE_NOT_FOUND", "This process has no service of that name.")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, _request: health_pb2.HealthListRequest) -> health_pb2.HealthListResponse:  # noqa: N802
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._status.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        last = None
        while True:
            changed, stopping = self._changed, self._stopping
            status = self._status.get(request.service, _UNKNOWN)
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            if stopping:
                return
            await changed.wait()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
