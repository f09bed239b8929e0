"""Callers of the platform, by REST and by gRPC, who write down what they asked and were answered.

gRPC by grpc's own client and REST by httpx: neither is the platform's.
"""

import asyncio
import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
import httpx
from google.protobuf import message_factory
from google.protobuf.message import Message

from bas.devices.v2 import devices_service_pb2
from bas.events.v2 import events_service_pb2
from bas.sessions.v2 import sessions_service_pb2
from tests.chaos.checks import mark
from tests.chaos.history import Call, History
from tests.chaos.world import GATEWAY, World

_TICK: Final = 0.005
_LATE: Final = 0.002
_LONGEST: Final = 10.0

_MODULES: Final[Mapping[str, tuple[str, Any]]] = {
    "devices": ("bas.devices.v2.DeviceService", devices_service_pb2),
    "sessions": ("bas.sessions.v2.SessionService", sessions_service_pb2),
    "events": ("bas.events.v2.EventService", events_service_pb2),
}


class Failed(Exception):
    """A call that was not answered OK. `code` is gRPC's name of it; what has no status is UNAVAILABLE."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Lag:
    """How late this process's own loop is: it carries the proxies, and measures the others."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._late: list[float] = []

    async def watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_TICK)
            late = time.monotonic() - before - _TICK
            if late > _LATE:
                self._moments.append(before)
                self._late.append(late)

    def between(self, began: float, ended: float) -> float:
        """The sum of what overlaps; of a time that is over, as a stall is known at its end."""
        total = 0.0
        for at in range(bisect_right(self._moments, ended) - 1, -1, -1):
            moment, late = self._moments[at], self._late[at]
            if moment < began - _LONGEST:
                break
            if moment + late + _TICK >= began:
                total += late
        return total


class Clients:
    """One for a run. Every call is in `history.calls`; it asks for `timeout` seconds unless it says otherwise."""

    def __init__(self, world: World, history: History, timeout: float) -> None:
        self._timeout = timeout
        self._world = world
        self._history = history
        self._numbers = itertools.count(1)
        self._tokens: dict[str, str] = {}
        self.tenants: list[str] = []
        self._rest = httpx.AsyncClient(
            base_url=world.gateway,
            limits=httpx.Limits(max_connections=300, max_keepalive_connections=300),
            timeout=httpx.Timeout(timeout + 20.0),
        )
        self._channels = {
            name: grpc.aio.insecure_channel(
                f"127.0.0.1:{world.port(name)}",
                options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)],
            )
            for name in world.shape.replicas
            if name != GATEWAY
        }
        self._calls: dict[tuple[str, str], Callable[..., Any]] = {}

    async def close(self) -> None:
        await self._rest.aclose()
        for channel in self._channels.values():
            await channel.close()

    def token(self, tenant: str) -> str:
        if tenant not in self._tokens:
            self._tokens[tenant] = self._world.token(tenant)
            self.tenants.append(tenant)
        return self._tokens[tenant]

    async def grpc(
        self,
        where: str,
        tenant: str,
        name: str,
        request: Message,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - sent along
    ) -> Any:
        """One attempt, at one process. Raises Failed."""
        service, module = _MODULES[self._world.shape.replicas[where]]
        call = self._calls.get((where, name))
        if call is None:
            method = module.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[name]
            made = _message_class(method.output_type)
            call = self._calls[where, name] = self._channels[where].unary_unary(
                f"/{service}/{name}", request_serializer=_serialized, response_deserializer=made.FromString
            )
        began, timeout = time.monotonic(), timeout or self._timeout
        outcome = "CANCELLED"
        try:
            answer = await call(request, timeout=timeout, metadata=(("authorization", f"Bearer {self.token(tenant)}"),))
            outcome = "OK"
        except grpc.aio.AioRpcError as failure:
            outcome = failure.code().name
            raise Failed(outcome) from None
        finally:
            self._record(name, where, tenant, began, timeout, outcome, "")
        return answer

    async def rest(
        self,
        tenant: str,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - sent along
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """JSON in, JSON out. Raises Failed."""
        request_id = f"chaos-{next(self._numbers)}"
        began, timeout = time.monotonic(), timeout or self._timeout
        outcome = "CANCELLED"
        try:
            answer = await self._rest.request(
                verb,
                path,
                json=body,
                headers={
                    "authorization": f"Bearer {self.token(tenant)}",
                    "request-timeout": f"{int(timeout * 1000)}ms",
                    "x-request-id": request_id,
                    **(headers or {}),
                },
            )
            outcome = _OUTCOMES.get(answer.status_code, str(answer.status_code))
        except httpx.HTTPError:
            outcome = "UNAVAILABLE"
        finally:
            self._record(
                f"{verb} {path.partition('?')[0].split('/')[3]}", GATEWAY, tenant, began, timeout, outcome, request_id
            )
        if outcome != "OK":
            raise Failed(outcome)
        self._look_for_others(tenant, answer.text)
        return answer.json() if answer.content else None

    def _look_for_others(self, tenant: str, text: str) -> None:
        """Anything that names another tenant as its own, in whatever field."""
        for other in self.tenants:
            if other != tenant and mark(other) in text:
                self._history.foreign.append(f"{tenant} was shown {other}'s: {text[:300]}")

    def _record(
        self,
        kind: str,
        where: str,
        tenant: str,
        began: float,
        timeout: float,
        outcome: str,
        request_id: str,
    ) -> None:
        ended = time.monotonic()
        self._history.calls.append(Call(kind, where, tenant, began, ended, timeout, outcome, request_id=request_id))


_OUTCOMES: Final = {
    200: "OK",
    201: "OK",
    204: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _message_class(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)
