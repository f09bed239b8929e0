import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.listen import PortTaken
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.metrics import Metrics


@pytest.fixture
async def exposed() -> AsyncIterator[Exposition]:
    metrics = Metrics()
    metrics.counter("things", "Things.").inc(3)
    exposition = Exposition(metrics.registry, host="127.0.0.1", port=0, setting="BAS_X_METRICS_PORT")
    await exposition.start()
    yield exposition
    await exposition.stop()


async def ask(exposed: Exposition, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", exposed.port)
    writer.write(request)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_metrics_are_shown(exposed: Exposition) -> None:
    answer = await ask(exposed, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"things_total 3.0" in answer


async def test_the_process_says_that_it_lives(exposed: Exposition) -> None:
    assert (await ask(exposed, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nok\n")
    assert (await ask(exposed, b"HEAD /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [(b"GET / HTTP/1.1\r\n\r\n", b"404"), (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"), (b"\r\n\r\n", b"404")],
)
async def test_anything_else_is_refused(exposed: Exposition, request_: bytes, status: bytes) -> None:
    assert (await ask(exposed, request_)).split()[1] == status


async def test_a_head_without_end_is_cut_off(exposed: Exposition) -> None:
    assert await ask(exposed, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 70_000) == b""


async def test_a_stop_does_not_wait_for_who_says_nothing(exposed: Exposition) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", exposed.port)
    await asyncio.sleep(0.05)
    async with asyncio.timeout(4):
        await exposed.stop()
    writer.close()


async def test_a_taken_port_is_told(exposed: Exposition) -> None:
    with pytest.raises(PortTaken, match="BAS_X_METRICS_PORT"):
        Exposition(Metrics().registry, host="127.0.0.1", port=exposed.port, setting="BAS_X_METRICS_PORT")
