"""One request over gRPC or HTTP, and all that its sender can see of the answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from chassis import policies
from tests.isolation.deployment import Deployment
from tests.support import patience
from tests.support.sse import Dispatched, Parser

Headers = Sequence[tuple[str, str]]

_REQUEST_ID: Final = ("x-request-id", "the-same")
"""Named by the sender, so that answers to the same request are the same."""
_HASHES: Final = frozenset({"hashes", "key", "leaf_hash", "note", "personal_hash", "personal_salt", "root_hash"})
_MADE: Final = _HASHES | {
    "etag",
    "token",
    "next_page_token",
    "session_id",
    "next_interval",
    "cursor",
    "next_cursor",
    "entry_id",
    "sequence",
}
"""Fields whose values the platform makes: no two answers have the same."""
_LOOKED: Final = "audit.read"
"""The action of an entry that says that the log was looked at: by whom, and in how many minutes, is the check's doing."""
_TIMESTAMP: Final = "google.protobuf.Timestamp"


@dataclass(frozen=True, slots=True)
class Answer:
    """`code` is the canonical name (`OK`), `reason` the stable one; `refusal` is every byte of an answer that is not
    OK, `response` the message of one that is, `stream` the messages of one that is a stream."""

    code: str
    reason: str = ""
    refusal: bytes = b""
    response: Message | None = None
    stream: tuple[Message, ...] = ()

    @property
    def ok(self) -> bool:
        return self.code == "OK"

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.stream if self.response is None else (self.response,)

    def contains(self, text: str) -> bool:
        return any(
            text.encode() in raw for raw in (self.refusal, *(each.SerializeToString() for each in self.messages))
        )

    def alike(self, **hidden: str) -> "tuple[str, str, bytes]":
        """The answer with the values in `hidden` blanked, and without what is different in any two answers."""
        raw = self.refusal
        if self.ok:
            raw = b"\n".join(scrubbed(each).SerializeToString(deterministic=True) for each in self.messages)
        for name in hidden.values():
            raw = raw.replace(name.encode(), b"?" * len(name.encode()))
        return self.code, self.reason, raw

    def made(self) -> set[str]:
        """The values that the platform made for this answer."""
        return {value for each in self.messages for value in _made(each)}


def scrubbed(message: Message, *, times: bool = True) -> Message:
    """A copy without what the platform makes; or only without the time of a count."""
    copy = type(message)()
    copy.CopyFrom(message)
    _scrub(copy, times=times)
    return copy


def _scrub(message: Message, *, times: bool) -> None:
    for field, value in message.ListFields():
        made = times and (field.name in _MADE or _is_time(field))
        if made or field.name == "as_of":
            message.ClearField(field.name)
        else:
            if field.is_repeated and field.name == "entries":
                for looked in [each for each in value if each.action == _LOOKED]:
                    value.remove(looked)
            for each in _messages(field, value):
                _scrub(each, times=times)


def _made(message: Message) -> list[str]:
    found = []
    for field, value in message.ListFields():
        if field.name in _MADE and isinstance(value, str):
            found.append(value)
        for each in _messages(field, value):
            found += _made(each)
    return found


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None or _is_time(field):
        return []
    if field.message_type.GetOptions().map_entry:
        return [each for each in value.values() if isinstance(each, Message)]
    return list(value) if field.is_repeated else [value]


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _TIMESTAMP


@dataclass(frozen=True, slots=True)
class Smuggled:
    """What comes along with a request beside its fields. `body` is appended to the bytes of a message, `members` are
    added to a JSON body, `query` to a query string."""

    headers: Headers = ()
    body: bytes = b""
    members: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()


NOTHING: Final = Smuggled()


class Refused(Exception):
    """A stream that was not begun."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class Wire(Protocol):
    name: str

    def follow(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """The messages of a stream as they come. Raises Refused, when the first is asked for at the latest."""
        ...

    async def call(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> Answer: ...


class OverGrpc:
    """Straight to the service."""

    name = "grpc"

    def __init__(self, deployment: Deployment) -> None:
        self._channels = deployment.channels

    async def call(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> Answer:
        assert not method.client_streaming, "teach tests/isolation/wire.py streams of requests"
        if method.server_streaming:
            return await gathered(self, method, request, credential, smuggled)
        send: Any = self._channels[service_of(method)].unary_unary(policies.path(method))
        metadata = (*credential, _REQUEST_ID, *smuggled.headers)
        try:
            raw = await send(request.SerializeToString() + smuggled.body, metadata=metadata, timeout=patience.CALL)
        except grpc.aio.AioRpcError as failure:
            return _failed(failure)
        return Answer("OK", response=GetMessageClass(method.output_type).FromString(raw))

    @asynccontextmanager
    async def follow(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> AsyncIterator[AsyncIterator[Message]]:
        begin: Any = self._channels[service_of(method)].unary_stream(policies.path(method))
        metadata = (*credential, _REQUEST_ID, *smuggled.headers)
        call = begin(request.SerializeToString() + smuggled.body, metadata=metadata, timeout=patience.CALL)
        read = GetMessageClass(method.output_type).FromString

        async def messages() -> AsyncIterator[Message]:
            try:
                async for raw in call:
                    yield read(raw)
            except grpc.aio.AioRpcError as failure:
                raise Refused(_failed(failure)) from None

        try:
            yield messages()
        finally:
            call.cancel()


class OverHttp:
    """Through the gateway."""

    name = "rest"

    def __init__(self, deployment: Deployment) -> None:
        self._http = deployment.http

    async def call(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> Answer:
        if method.server_streaming:
            return await gathered(self, method, request, credential, smuggled)
        answer = await self._http.send(self._request(method, request, credential, smuggled))
        if answer.status_code >= 400:
            return _refused(answer)
        response = GetMessageClass(method.output_type)()
        if answer.content:
            json_format.Parse(answer.content, response)
        return Answer("OK", response=response)

    @asynccontextmanager
    async def follow(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> AsyncIterator[AsyncIterator[Message]]:
        sent = self._request(method, request, (*credential, ("accept", "application/x-ndjson")), smuggled)
        answer = await self._http.send(sent, stream=True)
        made = GetMessageClass(method.output_type)

        async def messages() -> AsyncIterator[Message]:
            async for line in answer.aiter_lines():
                yield json_format.Parse(line, made())

        try:
            if answer.status_code >= 400:
                await answer.aread()
                raise Refused(_refused(answer))
            yield messages()
        finally:
            await answer.aclose()

    def _request(
        self, method: MethodDescriptor, request: Message, headers: Headers, smuggled: Smuggled
    ) -> httpx.Request:
        asked = transcoded(method, request)
        return self._http.build_request(
            asked.verb,
            asked.path,
            params=[*asked.query, *smuggled.query] or None,
            json=None if asked.body is None else asked.body | dict(smuggled.members),
            headers=[*headers, _REQUEST_ID, *patience.HEADERS.items(), *smuggled.headers],
        )


class OverEventStream(OverHttp):
    """Through the gateway's hub, as a browser: streams of events as CloudEvents, that all who ask for the same share."""

    name = "sse"

    @asynccontextmanager
    async def follow(
        self, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled = NOTHING
    ) -> AsyncIterator[AsyncIterator[Message]]:
        sent = self._request(method, request, (*credential, ("accept", "text/event-stream")), smuggled)
        answer = await self._http.send(sent, stream=True)
        made = GetMessageClass(method.output_type)

        async def messages() -> AsyncIterator[Message]:
            parser = Parser()
            async for chunk in answer.aiter_bytes():
                comments = len(parser.comments)
                for told in parser.feed(chunk):
                    yield _told(made(), told)
                if len(parser.comments) > comments:
                    heartbeat: Any = made()
                    heartbeat.heartbeat.SetInParent()
                    yield heartbeat

        try:
            if answer.status_code >= 400:
                await answer.aread()
                raise Refused(_refused(answer))
            yield messages()
        finally:
            await answer.aclose()


def _told(message: Any, told: Dispatched) -> Message:
    """An event of the stream as the message that it came from."""
    if told.name in ("gap", "warning", "end"):
        json_format.Parse(told.data, getattr(message, told.name), ignore_unknown_fields=True)
        return message  # type: ignore[no-any-return]  # what it was given
    event = json.loads(told.data)
    logged = message.event
    known = {field.json_name for field in logged.event.DESCRIPTOR.fields}
    plain = {name: value for name, value in event.items() if name in known}
    extensions = {name: value for name, value in event.items() if name not in known}
    json_format.ParseDict(plain | {"extensions": extensions}, logged.event)
    logged.cursor = told.last_event_id
    return message  # type: ignore[no-any-return]


async def gathered(
    wire: Wire, method: MethodDescriptor, request: Message, credential: Headers, smuggled: Smuggled
) -> Answer:
    """What a stream tells of what is there already: all of it or, of one that does not end, what comes before a heartbeat.
    One that goes on from a cursor is given one after which there is something: an earlier heartbeat only fills the time."""
    found: list[Message] = []
    try:
        async with asyncio.timeout(patience.CALL), wire.follow(method, request, credential, smuggled) as messages:
            async for message in messages:
                if kind_of(message) != "heartbeat":
                    found.append(message)
                elif found or not getattr(request, "cursor", ""):
                    break
    except Refused as refused:
        return refused.answer
    return Answer("OK", stream=tuple(found))


def kind_of(message: Message) -> str:
    """Which of the kinds of message in its stream it is."""
    (one,) = message.DESCRIPTOR.oneofs
    return str(message.WhichOneof(one.name))


def _failed(failure: grpc.aio.AioRpcError) -> Answer:
    trailers = sorted((key, value) for key, value in failure.trailing_metadata() or ())
    seen = repr((failure.details(), trailers)).encode()
    return Answer(failure.code().name, _reason(dict(trailers)), seen)


def _refused(answer: httpx.Response) -> Answer:
    headers = sorted((key, value) for key, value in answer.headers.items() if key != "date")
    return Answer(str(answer.status_code), answer.json()["code"], repr((headers, answer.text)).encode())


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of an RPC as HTTP has it; `body` is None where the rule has none."""

    verb: str
    path: str
    query: list[tuple[str, str]]
    body: dict[str, Any] | None


def transcoded(method: MethodDescriptor, request: Message) -> Asked:
    """By the method's `google.api.http` rule."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    tree = json_format.MessageToDict(request, preserving_proto_field_name=True)
    path = re.sub(r"\{([^}]+)\}", lambda found: quote(_taken(tree, found[1]), safe=""), getattr(rule, verb))
    made = Asked(verb.upper(), path, [], None)
    if rule.body == "*":
        return replace(made, body=tree)
    if rule.body:
        made = replace(made, body=tree.pop(rule.body, {}))
    return replace(made, query=[(name, str(value)) for name, value in tree.items()])


def _taken(tree: dict[str, Any], path: str) -> str:
    *holders, name = path.split(".")
    for holder in holders:
        tree = tree[holder]
    return str(tree.pop(name))


def service_of(method: MethodDescriptor) -> str:
    """`bas.devices.v2.DeviceService` → `devices`."""
    return str(method.containing_service.full_name).split(".")[1]


def _reason(trailers: dict[str, Any]) -> str:
    info = ErrorInfo()
    for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""
