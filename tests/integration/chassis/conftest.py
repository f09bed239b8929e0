import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from chassis.auth import keys, tokens
from chassis.auth.keys import KeySet
from chassis.auth.refusals import Refusals
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import Clock, SystemClock
from chassis.config import Auth, Deadline, Grpc, Seconds
from chassis.errors import ApiError, invalid_field
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.interceptors.status import error_of
from chassis.module import ServiceModule
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.shedding import Shedder
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from tests.support import echo


def refuse_bad(message: Any) -> None:
    """The validator: the text `bad` is refused."""
    if getattr(message, "text", "") == "bad":
        raise invalid_field("text", "must not be bad")


@dataclass
class Running:
    """A server with the echo service, a channel to it, and a token for it."""

    server: GrpcServer
    channel: grpc.aio.Channel
    echo: echo.Echo
    metrics: Metrics
    keys: KeySet
    auth: Auth = field(default_factory=Auth)

    def bearer(self, *scopes: str, tenant: str = "t1", subject: str = "me") -> tuple[tuple[str, str], ...]:
        grant = Grant(tenant, subject, scopes or ("devices:write",))
        return (("authorization", "Bearer " + tokens.mint(self.keys, self.auth, grant, SystemClock().now())),)

    def unary(self, method: str = "Unary") -> Any:
        return self.channel.unary_unary(f"/{echo.NAME}/{method}", word, echo.Word.FromString)

    def server_stream(self) -> Any:
        return self.channel.unary_stream(f"/{echo.NAME}/ServerStream", word, echo.Word.FromString)

    def client_stream(self) -> Any:
        return self.channel.stream_unary(f"/{echo.NAME}/ClientStream", word, echo.Word.FromString)

    def bidi_stream(self) -> Any:
        return self.channel.stream_stream(f"/{echo.NAME}/BidiStream", word, echo.Word.FromString)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"grpc_service": echo.NAME, **labels}) or 0.0


def word(text: str | bytes) -> bytes:
    """The request's bytes; bytes are sent as they are."""
    return text if isinstance(text, bytes) else echo.Word(text=text).SerializeToString()


async def words(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def refused(call: Any) -> ApiError:
    """The error that an awaited call, or the reading of a stream, ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:  # noqa: PT012 - the shape decides how it is awaited
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    return error_of(failure.value)


def make_server(
    servicer: echo.Echo,
    held: KeySet,
    metrics: Metrics,
    *,
    config: Grpc,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock | None = None,
    deadline: Deadline | None = None,
    limiter: Limiter | None = None,
    shedder: Shedder | None = None,
    refusals: Refusals | None = None,
) -> GrpcServer:
    clock = clock or SystemClock()
    verifier = Verifier(held, Auth(), clock)
    gate = Gate(
        verifier, clock, deadline or Deadline(), os.urandom, limiter=limiter, shedder=shedder, refusals=refusals
    )
    chain = ServerChain(gate, metrics, lambda _descriptor: refuse_bad)
    module = ServiceModule("echo", echo.DESCRIPTOR, servicer)
    return GrpcServer([module], chain, config, host=host, port=port, setting="BAS_ECHO_PORT")


@pytest.fixture(autouse=True)
def logged() -> Iterator[Any]:
    """What is logged in a test, as a list of events."""
    with capture_logs() as events:
        yield events


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> KeySet:
    return keys.load_or_create(tmp_path_factory.mktemp("keys") / "keys.json", os.urandom)


@pytest.fixture
def grpc_config() -> Grpc:
    return Grpc(drain=Seconds(30))


@pytest.fixture
async def running(held: KeySet, grpc_config: Grpc, tmp_path: Path) -> AsyncIterator[Running]:
    servicer, metrics = echo.Echo(), Metrics()
    server = make_server(servicer, held, metrics, config=grpc_config)
    await server.start()
    server.health.set_all(SERVING)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(server, channel, servicer, metrics, held)
    await server.stop()
