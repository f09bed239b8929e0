"""Our HTTP/2 client before gRPC's own server, beside gRPC's own client, and before peers that misbehave."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.http2.channel import Channel
from chassis.http2.grpc import Failure
from tests.support.eventually import eventually

PATH = "/t.T/Do"
MOST = 4 * 1024 * 1024
Handler = Callable[[bytes, Any], Awaitable[bytes]]


async def same(request: bytes, _context: Any) -> bytes:
    return request


@asynccontextmanager
async def server(handler: Handler, port: int = 0, **options: int) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    """GRPC's server with one method."""
    made = grpc.aio.server(
        options=[(f"grpc.{name}", value) for name, value in {"max_receive_message_length": MOST, **options}.items()]
    )
    method: Any = grpc.unary_unary_rpc_method_handler(handler)
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Do": method}),))
    listening = made.add_insecure_port(f"127.0.0.1:{port}")
    await made.start()
    try:
        yield made, listening
    finally:
        await made.stop(None)


@asynccontextmanager
async def channel(port: int, most: int = MOST) -> AsyncIterator[Channel]:
    made = Channel(f"127.0.0.1:{port}", max_response=most, random=random.Random(1).random)
    try:
        yield made
    finally:
        await made.close()


async def failure(call: Awaitable[bytes]) -> Failure:
    with pytest.raises(Failure) as got:
        await call
    return got.value


async def test_messages_of_every_size_in_any_number() -> None:
    async with server(same) as (_, port), channel(port) as client:
        call = client.unary(PATH)
        sizes = [0, 1, 100, 16_379, 16_380, 65_530, 65_531, 200_000, 3_000_000]
        sent = [bytes([index]) * size for index, size in enumerate(sizes * 3)]
        assert await asyncio.gather(*(call(each, 60, ()) for each in sent)) == sent
        many = [str(number).encode() for number in range(500)]
        assert await asyncio.gather(*(call(each, 60, ()) for each in many)) == many


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
    st.binary(max_size=200),
)
def test_a_failure_is_what_grpcs_own_client_sees(code: grpc.StatusCode, message: str, details: bytes) -> None:
    async def fail(_request: bytes, context: Any) -> bytes:
        await context.abort(code, message, (("x-plain", "a b"), ("x-details-bin", details)))
        return b""

    async def both() -> None:
        async with server(fail) as (_, port), channel(port) as client:
            ours = await failure(client.unary(PATH)(b"x", 60, ()))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as official:
                other: Any = official.unary_unary(PATH)
                with pytest.raises(grpc.aio.AioRpcError) as theirs:
                    await other(b"x", timeout=60)
        assert (ours.status, ours.message) == (theirs.value.code().value[0], theirs.value.details() or "")
        assert ours.trailers["x-plain"] == "a b"

    asyncio.run(both())


async def test_metadata_arrives_and_a_long_credential_takes_more_than_one_frame() -> None:
    seen: dict[str, str] = {}

    async def look(request: bytes, context: Any) -> bytes:
        seen.update({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return request

    room = {"max_metadata_size": 65_536, "absolute_max_metadata_size": 65_536}
    async with server(look, **room) as (_, port), channel(port) as client:
        for length in (100, 126, 127, 128, 5_000, 20_000):
            await client.unary(PATH)(b"x", 60, (("authorization", "a" * length), ("x-request-id", "r-1")))
            assert seen["authorization"] == "a" * length
            assert seen["x-request-id"] == "r-1"


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    gone, left = asyncio.Event(), []

    async def hang(_request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining())
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return b""

    async with server(hang) as (_, port), channel(port) as client:
        call = client.unary(PATH)
        for seconds in (0.15, 2, 10):  # a busy machine may need longer than the first for the way there
            assert (await failure(call(b"x", seconds, ()))).status == 4
            if left:
                break
        async with asyncio.timeout(30):
            await gone.wait()
        assert 0 <= left[0] <= seconds + 0.01


async def test_a_service_that_is_down_is_unavailable_at_once_and_found_again() -> None:
    async with server(same) as (_, port):
        pass
    async with channel(port) as client:
        call = client.unary(PATH)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(20):
            assert (await failure(call(b"x", 60, ()))).status == 14
        assert loop.time() - begun < 30
        async with server(same, port):
            statuses: list[int] = []

            async def answers() -> bool:
                try:
                    return await call(b"x", 60, ()) == b"x"
                except Failure as down:
                    statuses.append(down.status)
                    return False

            await eventually(answers, "the service is found again")
            assert set(statuses) <= {14}, "down is down, whatever the deadline"


async def test_a_port_that_accepts_and_says_nothing_is_unavailable() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with channel(listener.sockets[0].getsockname()[1]) as client:
        assert (await failure(client.unary(PATH)(b"x", 0.2, ()))).status == 14
    listener.close()
    await listener.wait_closed()


async def test_a_server_that_drains_ends_what_it_has_begun() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _context: Any) -> bytes:
        entered.set()
        await release.wait()
        return request

    async with server(slow) as (stopping, port), channel(port) as client:
        call = client.unary(PATH)
        running = asyncio.ensure_future(call(b"x", 60, ()))
        await entered.wait()
        stop = asyncio.create_task(stopping.stop(60))
        async with asyncio.timeout(30):
            while (await failure(call(b"y", 0.3, ()))).status != 14:
                pass
        release.set()
        assert await running == b"x"
        await stop


async def test_an_answer_beyond_the_limit_and_one_at_it() -> None:
    async def grow(request: bytes, _context: Any) -> bytes:
        return bytes(int(request))

    async with server(grow) as (_, port), channel(port, most=100_000) as client:
        call = client.unary(PATH)
        assert len(await call(b"100000", 60, ())) == 100_000
        assert (await failure(call(b"100001", 60, ()))).status == 8
        assert len(await call(b"7", 60, ())) == 7, "the connection goes on"


async def test_many_more_bytes_than_a_window_on_one_connection() -> None:
    async with server(same) as (_, port), channel(port) as client:
        call, block = client.unary(PATH), bytes(1_000_000)
        for _ in range(40):
            assert len(await call(block, 60, ())) == len(block)


@pytest.mark.parametrize("streams", [1, 3])
async def test_calls_wait_for_a_server_that_takes_few(streams: int) -> None:
    async with server(same, max_concurrent_streams=streams) as (_, port), channel(port) as client:
        call = client.unary(PATH)
        many = [str(number).encode() for number in range(100)]
        assert await asyncio.gather(*(call(each, 60, ()) for each in many)) == many


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP/1.1"),
        pytest.param(b"\xff" * 64, id="noise"),
        pytest.param(bytes(9), id="a frame of no stream"),
        pytest.param(b"\0\0\x06\x04\0\0\0\0\0\0\x04\xff\xff\xff\xff", id="a window too large"),
    ],
)
async def test_a_peer_that_does_not_speak_http2(said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with channel(listener.sockets[0].getsockname()[1]) as client:
        assert (await failure(client.unary(PATH)(b"x", 60, ()))).status == 14
    listener.close()
    await listener.wait_closed()


async def test_an_address_of_another_form() -> None:
    for address in ("", "localhost", "a:b", ":1", "xds:///x"):
        with pytest.raises(ValueError, match="host:port"):
            Channel(address, max_response=1, random=lambda: 0.0)
