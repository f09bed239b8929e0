"""Reading counts and setting faults from another process: `bas.testing.Control/Do`, JSON in and out, beside Firestore's RPCs."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc

from tests.firestore.faults import Fault
from tests.firestore.server import FirestoreServer

METHOD = "/bas.testing.Control/Do"


class ControlHandler(grpc.GenericRpcHandler):
    """The server's end."""

    def __init__(self, server: FirestoreServer) -> None:
        self._server = server
        self._acts: dict[str, Callable[[dict[str, Any]], Any]] = {
            "counts": lambda _: server.counts.to_json(),
            "attempts": lambda _: [each.to_json() for each in server.counts.attempts],
            "write_times": lambda _: server.counts.write_times,
            "clear_counts": lambda _: server.counts.clear(),
            "add_fault": self._add_fault,
            "clear_faults": lambda _: server.faults.clear(),
            "set": self._set,
            "names": lambda _: server.documents.names(),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._do) if handler_call_details.method == METHOD else None

    async def _do(self, raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        request = json.loads(raw)
        act = self._acts.get(request["do"])
        if act is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no such act: {request['do']}")
            raise AssertionError("abort raises")
        return json.dumps(act(request)).encode()

    def _add_fault(self, request: dict[str, Any]) -> None:
        self._server.faults.add(request["rpc"], Fault.from_json(request["fault"]), times=request["times"])

    def _set(self, request: dict[str, Any]) -> None:
        if "latency" in request:
            self._server.latency = float(request["latency"])
        if "skew" in request:
            self._server.skew = timedelta(seconds=float(request["skew"]))


class Control:
    """The test's end, over a channel of its own."""

    def __init__(self, address: str, *, timeout: float = 60.0) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._call: Any = self._channel.unary_unary(METHOD)
        self._timeout = timeout

    async def counts(self) -> dict[str, Any]:
        """`reads`, `writes`, `deletes`, `rpcs` (by name), `hottest` (name, writes_in_a_second)."""
        return dict(await self._do("counts"))

    async def attempts(self) -> list[dict[str, Any]]:
        """Each call: `rpc`, `began` (s), `budget` (s or null), `ended`, `outcome`."""
        return list(await self._do("attempts"))

    async def write_times(self) -> dict[str, list[int]]:
        """Document name → microseconds of its writes."""
        return dict(await self._do("write_times"))

    async def names(self) -> list[str]:
        return list(await self._do("names"))

    async def clear_counts(self) -> None:
        await self._do("clear_counts")

    async def add_fault(self, rpc: str, fault: Fault, *, times: int | None = 1) -> None:
        await self._do("add_fault", rpc=rpc, fault=fault.to_json(), times=times)

    async def clear_faults(self) -> None:
        await self._do("clear_faults")

    async def set(self, **values: float) -> None:
        """`latency` and `skew`, seconds."""
        await self._do("set", **values)

    async def close(self) -> None:
        await self._channel.close()

    async def _do(self, act: str, **arguments: Any) -> Any:
        answer = await self._call(json.dumps({"do": act} | arguments).encode(), timeout=self._timeout)
        return json.loads(answer)
