"""A service with all four call shapes, made at run time, whose behaviour a request asks for by name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from bas.annotations.v2 import annotations_pb2
from chassis import context

NAME = "bas.chassistest.v2.EchoService"
_FILE = "bas/chassistest/v2/echo.proto"
_DEADLINES = {"Quick": (100, 200), "Expected": (100, 60_000)}
"""Default and longest in ms: one that is missed by who waits, one that says when a call counts as slow. All others are
long: a busy machine is no failure of what tests are about."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=_FILE, package="bas.chassistest.v2", syntax="proto3", dependency=["bas/annotations/v2/annotations.proto"]
    )
    message = file.message_type.add(name="Word")
    message.field.add(name="text", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    service = file.service.add(name="EchoService")
    for name, incoming, outgoing in (
        ("Unary", False, False),
        ("Quick", False, False),
        ("Expected", False, False),
        ("BySession", False, False),
        ("ServerStream", False, True),
        ("ClientStream", True, False),
        ("BidiStream", True, True),
    ):
        method = service.method.add(
            name=name,
            input_type=".bas.chassistest.v2.Word",
            output_type=".bas.chassistest.v2.Word",
            client_streaming=incoming,
            server_streaming=outgoing,
        )
        policy = method.options.Extensions[annotations_pb2.policy]
        policy.scope = "devices:write"
        if not (incoming or outgoing):
            policy.default_deadline_ms, policy.max_deadline_ms = _DEADLINES.get(name, (30_000, 60_000))
        if name == "BySession":
            policy.credential = annotations_pb2.CREDENTIAL_SESSION_TOKEN
    return file


_POOL = descriptor_pool.Default()
_POOL.AddSerializedFile(_file().SerializeToString())
DESCRIPTOR: Any = _POOL.FindServiceByName(NAME)
Word: Any = GetMessageClass(_POOL.FindMessageTypeByName("bas.chassistest.v2.Word"))


class Echo:
    """`act` is awaited with each text and returns the answer's text, or raises; everything seen is kept."""

    def __init__(self, act: Callable[[str], Awaitable[str]] | None = None) -> None:
        self.act = act or self._same
        self.calls: list[context.Call | None] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    @staticmethod
    async def _same(text: str) -> str:
        return text

    async def Unary(self, request: Any) -> Any:  # noqa: N802
        return Word(text=await self._do(request.text))

    async def Quick(self, request: Any) -> bytes:  # noqa: N802
        return bytes(Word(text=await self._do(request.text)).SerializeToString())

    BySession = Expected = Unary

    async def ServerStream(self, request: Any) -> AsyncIterator[Any]:  # noqa: N802
        for letter in request.text:
            yield Word(text=await self._do(letter))

    async def ClientStream(self, requests: AsyncIterator[Any]) -> Any:  # noqa: N802
        return Word(text="".join([await self._do(request.text) async for request in requests]))

    async def BidiStream(self, requests: AsyncIterator[Any]) -> AsyncIterator[bytes]:  # noqa: N802
        async for request in requests:
            yield Word(text=await self._do(request.text)).SerializeToString()

    async def _do(self, text: str) -> str:
        self.calls.append(context.current())
        self.entered.set()
        try:
            return await self.act(text)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
