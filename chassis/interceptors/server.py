"""The server chain, composed: one coroutine a call, with everything that is known of a method resolved once.

Each layer of a Python interceptor costs, and so does looking a handler up through one; so the chain is folded into the
handler itself when it is registered. `ORDER` names the layers; tests hold the behaviour to it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from chassis.auth.refusals import Refusals
from chassis.errors import ApiError, Code
from chassis.interceptors.admission import Gate, Progress, ServerContext, admission, identify
from chassis.interceptors.metrics import MethodMetrics, kind_of
from chassis.interceptors.recovery import Recovery
from chassis.policies import Policy
from chassis.resilience.shedding import never_shed
from chassis.telemetry.metrics import Metrics

ORDER: Final = (
    "recovery", "request_id", "metrics", "error_mapping", "load_shedding", "deadline", "authentication", "rate_limit",
    "validation",
)  # fmt: skip
"""The layers, outermost first."""

Validate = Callable[[Message], None]
"""Raises INVALID_ARGUMENT with every field that is wrong."""
CompileValidator = Callable[[Any], Validate]
"""From a message's `Descriptor`."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as it is registered. `handler` takes the request (or an async iterator of requests) and returns an
    awaitable of the response, or an async iterator of responses; a response is a message or its bytes."""

    path: str
    policy: Policy
    request: type[Message]
    handler: Callable[[Any], Any]
    client_streaming: bool = False
    server_streaming: bool = False


class ServerChain:
    """Makes gRPC handlers of methods."""

    def __init__(self, gate: Gate, metrics: Metrics, compile_validator: CompileValidator) -> None:
        self._gate = gate
        self._metrics = metrics
        self._compile = compile_validator

    def handler(self, method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
        """`method` behind the whole chain. Requests arrive and responses leave as bytes: both codecs are ours."""
        steps = _Steps(self._gate, self._metrics, method, self._compile(method.request.DESCRIPTOR))
        if method.client_streaming:
            if method.server_streaming:
                return grpc.stream_stream_rpc_method_handler(_bidi_stream(method, steps))
            return grpc.stream_unary_rpc_method_handler(_client_stream(method, steps))
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(_server_stream(method, steps))
        return grpc.unary_unary_rpc_method_handler(_unary(method, steps))


class _Steps:
    """The layers of one method, for the four shapes to call."""

    __slots__ = ("admit", "clock", "fail", "finish", "lane", "load", "metrics", "parse", "refuse")

    def __init__(self, gate: Gate, metrics: Metrics, method: Method, validate: Validate) -> None:
        streams = method.client_streaming or method.server_streaming
        kind = kind_of(client_streaming=method.client_streaming, server_streaming=method.server_streaming)
        self.metrics = MethodMetrics(metrics, "server", method.path, kind)
        self.clock = gate.clock.monotonic
        self.load = gate.shedder or never_shed()
        self.lane = self.load.lane(method.policy, streams=streams)
        self.admit = admission(gate, method.path, method.policy, streams=streams)
        expected = None if streams else method.policy.default_deadline
        recovery = Recovery(method.path, expected, gate.clock.monotonic, verbose=gate.log_calls)
        self.fail = recovery.fail if gate.refusals is None else _counted(gate.refusals, method.path, recovery.fail)
        self.refuse = recovery.refuse
        self.parse = _parser(method.request, validate)
        self.finish = _finisher(self.metrics, recovery, self.clock)

    async def enter(self, rpc: ServerContext, progress: Progress) -> None:
        """Let a stream in. It takes no room."""
        if self.lane.most < 0:
            identify(rpc, progress)
            raise self.load.refuse(self.lane)
        counted = self.admit(rpc, progress)
        if counted is not None:
            await counted

    def shed(self, rpc: ServerContext, progress: Progress) -> None:
        """Refuse a call for which there is no room."""
        identify(rpc, progress)
        self.refuse(rpc, progress, self.load.refuse(self.lane))

    def requests_of(self, incoming: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        return _Requests(incoming, self.parse)


def _parser(request: type[Message], validate: Validate) -> Callable[[bytes], Message]:
    from_string, name = request.FromString, request.DESCRIPTOR.full_name

    def parse(raw: bytes) -> Message:
        try:
            message = from_string(raw)
        except DecodeError:
            raise ApiError(
                Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", f"The request is not a well-formed {name}."
            ) from None
        validate(message)
        return message

    return parse


class _Requests:
    """The requests of a stream, parsed and validated as they are asked for. Not a generator: a handler may leave it
    half-read, and there is nothing to close."""

    __slots__ = ("_next", "_parse")

    def __init__(self, incoming: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> None:
        self._next = aiter(incoming).__anext__
        self._parse = parse

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Message:
        return self._parse(await self._next())


def _counted(
    refusals: Refusals, path: str, fail: Callable[[ServerContext, Progress, BaseException], None]
) -> Callable[[ServerContext, Progress, BaseException], None]:
    """What a failed call goes through, where refusals are counted. A call that succeeds does not."""

    def counted(rpc: ServerContext, progress: Progress, problem: BaseException) -> None:
        if isinstance(problem, ApiError):
            refusals.caught(problem, path, progress.request_id)
        fail(rpc, progress, problem)

    return counted


def _finisher(
    metrics: MethodMetrics, recovery: Recovery, clock: Callable[[], float]
) -> Callable[[Progress, float], None]:
    observe, handled, report, slow = metrics.observe, metrics.handled, recovery.report, recovery.slow_after

    def finish(progress: Progress, begun: float) -> None:
        if progress.timer is not None:
            progress.timer.cancel()
        elapsed = clock() - begun
        observe(elapsed)
        handled(progress.code)
        if elapsed >= slow or recovery.verbose:
            report(progress, elapsed)

    return finish


def _unary(method: Method, steps: _Steps) -> Callable[[bytes, ServerContext], Awaitable[bytes | None]]:
    admit, parse, fail, finish = steps.admit, steps.parse, steps.fail, steps.finish
    handler, clock, started = method.handler, steps.clock, steps.metrics.started
    load, lane = steps.load, steps.lane

    async def call(raw: bytes, rpc: ServerContext) -> bytes | None:
        begun = clock()
        started()
        progress = Progress()
        load.in_progress += 1
        try:
            if load.in_progress > lane.most:
                steps.shed(rpc, progress)
                return None
            counted = admit(rpc, progress)
            if counted is not None:
                await counted
            answer = await handler(parse(raw))
            progress.check()
            return answer if answer.__class__ is bytes else answer.SerializeToString()
        except BaseException as problem:  # noqa: BLE001 - the outermost layer
            fail(rpc, progress, problem)
            return None
        finally:
            load.in_progress -= 1
            finish(progress, begun)

    return call


def _client_stream(
    method: Method, steps: _Steps
) -> Callable[[AsyncIterator[bytes], ServerContext], Awaitable[bytes | None]]:
    fail, finish = steps.fail, steps.finish
    handler, clock, started = method.handler, steps.clock, steps.metrics.started

    async def call(incoming: AsyncIterator[bytes], rpc: ServerContext) -> bytes | None:
        begun = clock()
        started()
        progress = Progress()
        try:
            await steps.enter(rpc, progress)
            answer = await handler(steps.requests_of(incoming))
            progress.check()
            return answer if answer.__class__ is bytes else answer.SerializeToString()
        except BaseException as problem:  # noqa: BLE001 - the outermost layer
            fail(rpc, progress, problem)
            return None
        finally:
            finish(progress, begun)

    return call


def _server_stream(method: Method, steps: _Steps) -> Callable[[bytes, ServerContext], Awaitable[None]]:
    parse = steps.parse

    async def call(raw: bytes, rpc: ServerContext) -> None:
        await _answer_stream(method, steps, rpc, lambda: parse(raw))

    return call


def _bidi_stream(method: Method, steps: _Steps) -> Callable[[AsyncIterator[bytes], ServerContext], Awaitable[None]]:
    async def call(incoming: AsyncIterator[bytes], rpc: ServerContext) -> None:
        await _answer_stream(method, steps, rpc, lambda: steps.requests_of(incoming))

    return call


async def _answer_stream(method: Method, steps: _Steps, rpc: ServerContext, request: Callable[[], Any]) -> None:
    begun = steps.clock()
    steps.metrics.started()
    progress = Progress()
    try:
        await steps.enter(rpc, progress)
        answers = method.handler(request())
        try:
            async for answer in answers:
                await rpc.write(answer if answer.__class__ is bytes else answer.SerializeToString())
        finally:
            # Leaving the loop early must end the producer now, not when it is collected.
            await answers.aclose()
        progress.check()
    except grpc.aio.InternalError:  # what a write says when its reader has gone; the cancellation is on its way
        progress.code = Code.CANCELLED.name
    except BaseException as problem:  # noqa: BLE001 - the outermost layer
        steps.fail(rpc, progress, problem)
    finally:
        steps.finish(progress, begun)
