"""What every server brings along: health, reflection, channelz; ports; a graceful stop."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from chassis.auth.keys import KeySet
from chassis.clock import SystemClock
from chassis.config import Grpc, Seconds
from chassis.errors import Code
from chassis.health import NOT_SERVING, SERVING
from chassis.listen import CannotListen, PortTaken, check_port
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import Running, make_server, refused
from tests.support import echo

V1 = "grpc.reflection.v1.ServerReflection"
ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def reflection(channel: grpc.aio.Channel, service: str) -> Any:
    return channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )


async def ask(channel: grpc.aio.Channel, service: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(host="h", **question)

    (answer,) = [answer async for answer in reflection(channel, service)(questions())]
    return answer


@pytest.mark.parametrize("version", [V1, ALPHA])
async def test_reflection_lists_and_describes(running: Running, version: str) -> None:
    listed = await ask(running.channel, version, list_services="")
    names = [service.name for service in listed.list_services_response.service]
    assert names == sorted([echo.NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz", V1, ALPHA])
    assert (listed.valid_host, listed.original_request.host) == ("h", "h")
    for name in names:
        found = await ask(running.channel, version, file_containing_symbol=name)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in found.file_descriptor_response.file_descriptor_proto
        ]
        assert f"{files[0].package}.{files[0].service[0].name}" == name
        present = {file.name for file in files}
        assert all(set(file.dependency) <= present for file in files), "everything imported comes along"


@pytest.mark.parametrize("version", [V1, ALPHA])
async def test_reflection_answers_the_other_questions(running: Running, version: str) -> None:
    by_name = await ask(running.channel, version, file_by_filename="grpc/reflection/v1/reflection.proto")
    assert by_name.file_descriptor_response.file_descriptor_proto
    for method in (f"{echo.NAME}.Unary", "bas.chassistest.v2.Word", "bas.annotations.v2.policy"):
        assert (await ask(running.channel, version, file_containing_symbol=method)).HasField("file_descriptor_response")
    numbers = await ask(running.channel, version, all_extension_numbers_of_type="google.protobuf.MethodOptions")
    assert 50400 in numbers.all_extension_numbers_response.extension_number
    extension = reflection_pb2.ExtensionRequest(containing_type="google.protobuf.MethodOptions", extension_number=50400)
    found = await ask(running.channel, version, file_containing_extension=extension)
    assert found.HasField("file_descriptor_response")
    for nothing in (
        {"file_by_filename": "no"},
        {"file_containing_symbol": "no.Such"},
        {"all_extension_numbers_of_type": "x"},
    ):
        assert (await ask(running.channel, version, **nothing)).error_response.error_code == Code.NOT_FOUND.grpc_number
    empty = await ask(running.channel, version)
    assert empty.error_response.error_code == Code.INVALID_ARGUMENT.grpc_number


async def test_the_librarys_own_reflection_client_understands_it(running: Running) -> None:
    def describe() -> set[str]:
        with grpc.insecure_channel(f"127.0.0.1:{running.server.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert echo.NAME in database.get_services()
            file = database.FindFileContainingSymbol(echo.NAME)
            return {method.name for method in file.service[0].method}

    assert "BidiStream" in await asyncio.to_thread(describe)


async def test_health_has_a_status_per_service_and_watch_follows_it(running: Running) -> None:
    health = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", echo.NAME):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    assert (await refused(health.Check(health_pb2.HealthCheckRequest(service="no")))).code is Code.NOT_FOUND
    assert set((await health.List(health_pb2.HealthListRequest())).statuses) == {"", echo.NAME}
    watch = health.Watch(health_pb2.HealthCheckRequest(service=echo.NAME))
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="no"))
    assert (await watch.read()).status == SERVING
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    running.server.health.set_all(NOT_SERVING)
    assert (await watch.read()).status == NOT_SERVING
    running.server.health.set_all(SERVING)
    assert (await watch.read()).status == SERVING
    unknown.cancel()
    running.server.health.stop()
    assert (await watch.read()).status == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF, "a watch does not hold up the stop"


async def test_channelz_knows_the_server(running: Running) -> None:
    channelz = channelz_pb2_grpc.ChannelzStub(running.channel)
    servers = await channelz.GetServers(channelz_pb2.GetServersRequest(start_server_id=0))
    assert len(servers.server) >= 1
    got = await refused(channelz.GetServer(channelz_pb2.GetServerRequest(server_id=10**12)))
    assert got.code is Code.NOT_FOUND


@pytest.mark.parametrize(("setting", "host", "is_open"), [
    ("auto", "127.0.0.1", True), ("auto", "0.0.0.0", False), ("on", "0.0.0.0", True), ("off", "127.0.0.1", False),
])  # fmt: skip
async def test_who_needs_no_credential_is_configured(held: KeySet, setting: str, host: str, *, is_open: bool) -> None:
    server = make_server(echo.Echo(), held, Metrics(), config=Grpc(reflection=setting), host=host)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, channel, echo.Echo(), Metrics(), held)
        health, channelz = health_pb2_grpc.HealthStub(channel), channelz_pb2_grpc.ChannelzStub(channel)
        if is_open:
            await health.Check(health_pb2.HealthCheckRequest())
            await channelz.GetServers(channelz_pb2.GetServersRequest())
            await ask(channel, V1, list_services="")
        else:
            questions = reflection(channel, V1)
            assert (await refused(health.Check(health_pb2.HealthCheckRequest()))).reason == "TOKEN_MISSING"
            assert (await refused(channelz.GetServers(channelz_pb2.GetServersRequest()))).reason == "TOKEN_MISSING"
            assert (await refused(questions(iter([])))).reason == "TOKEN_MISSING"
            await health.Check(health_pb2.HealthCheckRequest(), metadata=running.bearer("users:read"))
    await server.stop()


async def test_a_servicer_that_lacks_a_method_is_no_server(held: KeySet) -> None:
    with pytest.raises(TypeError, match="Quick"):
        make_server(Lacking(), held, Metrics(), config=Grpc())  # type: ignore[arg-type]


class Lacking:
    def __getattr__(self, name: str) -> Any:
        if name == "Quick":
            raise AttributeError(name)
        return lambda *_: None


async def test_a_message_over_the_limit_is_refused(running: Running, grpc_config: Grpc) -> None:
    got = await refused(running.unary()("x" * (grpc_config.max_message + 1), metadata=running.bearer()))
    assert got.code is Code.RESOURCE_EXHAUSTED


# ports


async def test_a_taken_port_is_told_with_its_setting_before_anything_starts(running: Running, held: KeySet) -> None:
    with pytest.raises(PortTaken, match="BAS_ECHO_PORT") as taken:
        make_server(echo.Echo(), held, Metrics(), config=Grpc(), port=running.server.port)
    assert str(running.server.port) in str(taken.value)


def test_a_port_taken_by_anything_else_is_told(unused: socket.socket) -> None:
    unused.listen()
    with pytest.raises(PortTaken):
        check_port("127.0.0.1", unused.getsockname()[1], "BAS_X_PORT")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "999.1.1.1"])
def test_an_address_that_is_not_ours_names_the_host_setting(host: str) -> None:
    with pytest.raises(CannotListen, match="BAS_X_HOST"):
        check_port(host, 0, "BAS_X_METRICS_PORT")


@pytest.fixture
def unused() -> Any:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


# stopping


async def test_a_stop_lets_calls_finish_and_refuses_new_ones(running: Running) -> None:
    release = asyncio.Event()

    async def slow(text: str) -> str:
        await release.wait()
        return text

    running.echo.act = slow
    call = asyncio.ensure_future(running.unary()("x", metadata=running.bearer(), timeout=60))
    await running.echo.entered.wait()
    stopping = asyncio.create_task(running.server.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.port}") as late:
        again: Any = late.unary_unary(f"/{echo.NAME}/Unary")
        assert (await refused(again(b"", metadata=running.bearer(), timeout=1))).code in {
            Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED,
        }  # fmt: skip
    release.set()
    assert (await call).text == "x"
    await stopping


async def test_a_stop_ends_what_does_not_finish(held: KeySet) -> None:
    servicer = echo.Echo()
    server = make_server(servicer, held, Metrics(), config=dataclasses.replace(Grpc(), drain=Seconds(0.2)))
    await server.start()

    async def forever(_text: str) -> str:
        await asyncio.Event().wait()
        return ""

    servicer.act = forever
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, channel, servicer, Metrics(), held)
        call = asyncio.ensure_future(running.unary()("x", metadata=running.bearer(), timeout=60))
        await servicer.entered.wait()
        begun = SystemClock().monotonic()
        await server.stop()
        assert SystemClock().monotonic() - begun < 20
        async with asyncio.timeout(30):
            await servicer.cancelled.wait()
        assert (await refused(call)).code in {Code.UNAVAILABLE, Code.CANCELLED}


async def test_an_open_watch_does_not_hold_up_a_stop(running: Running) -> None:
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    begun = SystemClock().monotonic()
    await running.server.stop()
    assert SystemClock().monotonic() - begun < 20
    assert (await watch.read()).status == NOT_SERVING


async def test_a_server_that_never_started_can_be_stopped(held: KeySet) -> None:
    server = make_server(echo.Echo(), held, Metrics(), config=Grpc())
    async with asyncio.timeout(30):
        await server.stop()
    check_port("127.0.0.1", server.port, "BAS_X_PORT")
