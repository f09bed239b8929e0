"""Services that answer with streams, for the gateway's tests: each does what the test says, and tells what became of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import ExportedEntry, ExportEntriesRequest, ExportEntriesResponse
from bas.events.v2.events_service_pb2 import (
    Heartbeat,
    PublishEventsRequest,
    PublishEventsResponse,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
)
from chassis.errors import ApiError
from chassis.interceptors.status import STATUS_CODES, trailers_of
from tests.support.eventually import eventually

EXPORT: Final = "/bas.audit.v2.AuditService/ExportEntries"
SUBSCRIBE: Final = "/bas.events.v2.EventService/SubscribeEvents"


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


Script = Callable[[], AsyncIterator[Any]]


def entry(text: str) -> ExportEntriesResponse:
    return ExportEntriesResponse(entry=ExportedEntry(entry=Entry(reason=text), cursor="c1"))


async def entries(*texts: str) -> AsyncIterator[ExportEntriesResponse]:
    for text in texts:
        yield entry(text)


async def silence(*texts: str) -> AsyncIterator[ExportEntriesResponse]:
    """The entries, then nothing, for ever."""
    for text in texts:
        yield entry(text)
    await asyncio.Event().wait()


class FakeStreams:
    """`script` gives the messages of the next calls. `sent` counts those written, `active` the calls in progress."""

    def __init__(self) -> None:
        self.reset()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    def reset(self) -> None:
        self.script: Script = lambda: entries("a", "b")
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.sent = 0
        self.active = 0

    async def idle(self) -> None:
        """Wait until no call is in progress."""
        await eventually(lambda: not self.active, "the service to stop working", within=30)

    async def _stream(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.active += 1
        try:
            async for message in self.script():
                await context.write(message)
                self.sent += 1
        except ApiError as error:
            context.set_trailing_metadata(trailers_of(error, ""))
            await context.abort(STATUS_CODES[error.code], error.message)
        finally:
            self.active -= 1

    async def _publish(self, request: Any, context: Any) -> PublishEventsResponse:
        del context
        self.requests.append(request)
        return PublishEventsResponse(cursor="c1")

    async def start(self) -> None:
        self._server = grpc.aio.server()
        publish = grpc.unary_unary_rpc_method_handler(self._publish, PublishEventsRequest.FromString, _serialized)
        events = grpc.method_handlers_generic_handler("bas.events.v2.EventService", {"PublishEvents": publish})
        self._server.add_generic_rpc_handlers((events,))
        for path, request in ((EXPORT, ExportEntriesRequest), (SUBSCRIBE, SubscribeEventsRequest)):
            _, service, method = path.split("/")
            handler = grpc.unary_stream_rpc_method_handler(self._stream, request.FromString, _serialized)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


async def heartbeats(*cursors: str) -> AsyncIterator[SubscribeEventsResponse]:
    for cursor in cursors:
        yield SubscribeEventsResponse(heartbeat=Heartbeat(cursor=cursor))


@asynccontextmanager
async def serve_streams() -> AsyncIterator[FakeStreams]:
    made = FakeStreams()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
