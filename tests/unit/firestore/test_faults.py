"""Each fault as the client library meets it, and what was applied."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.firestore import AsyncClient

from tests.firestore_server import FirestoreServer, faults
from tests.support.eventually import eventually
from tests.unit.firestore.calls import DEVICES, commit, fields, ids, put, update

D = f"{DEVICES}/d"
_STATUSES = {
    grpc.StatusCode.UNAVAILABLE: exceptions.ServiceUnavailable,
    grpc.StatusCode.ABORTED: exceptions.Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: exceptions.ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: exceptions.DeadlineExceeded,
    grpc.StatusCode.PERMISSION_DENIED: exceptions.PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: exceptions.Unauthenticated,
    grpc.StatusCode.INTERNAL: exceptions.InternalServerError,
}


async def _call(rpc: str, client: AsyncClient) -> Any:
    match rpc:
        case "Commit":
            return await commit(client, update(client, D, {"n": 1}))
        case "BatchGetDocuments":
            return await fields(client, D)
        case "RunQuery":
            return await ids(client.collection(DEVICES))
        case _:
            query: Any = client.collection(DEVICES)
            return await query.count().get(retry=None, timeout=60)


@pytest.mark.parametrize("rpc", ["Commit", "BatchGetDocuments", "RunQuery", "RunAggregationQuery"])
@pytest.mark.parametrize("code", list(_STATUSES), ids=lambda code: code.name)
async def test_a_status_of_each_rpc(
    firestore_client: AsyncClient, firestore_server: FirestoreServer, rpc: str, code: grpc.StatusCode
) -> None:
    rule = firestore_server.faults.add(rpc, faults.status(code, "told to"))
    with pytest.raises(_STATUSES[code], match="told to"):
        await _call(rpc, firestore_client)
    assert rule.hits == 1
    assert not firestore_server.documents.names()
    await _call(rpc, firestore_client)
    assert [attempt.outcome for attempt in firestore_server.counts.attempts] == [code.name, "OK"]


async def test_an_answer_lost_after_the_commit(
    firestore_client: AsyncClient, firestore_server: FirestoreServer
) -> None:
    firestore_server.faults.add("Commit", faults.answer_lost())
    with pytest.raises(exceptions.ServiceUnavailable):
        await commit(firestore_client, update(firestore_client, D, {"n": 1}, exists=False))
    assert await fields(firestore_client, D) == {"n": 1}
    with pytest.raises(exceptions.AlreadyExists):
        await commit(firestore_client, update(firestore_client, D, {"n": 1}, exists=False))
    assert firestore_server.counts.writes == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_hang_ends_with_the_clients_deadline(
    firestore_client: AsyncClient,
    firestore_server: FirestoreServer,
    after: bool,  # noqa: FBT001 - a parameter
) -> None:
    firestore_server.faults.add("Commit", faults.hang(after=after))
    began = time.monotonic()
    with pytest.raises(exceptions.DeadlineExceeded):
        await firestore_client.document(D).create({"n": 1}, retry=None, timeout=2)
    assert time.monotonic() - began < 30
    assert firestore_server.documents.names() == ([f"{firestore_server.documents.prefix}/{D}"] if after else [])
    (attempt,) = firestore_server.counts.attempts
    await eventually(lambda: attempt.outcome == "CANCELLED", "the server sees that the client has gone")
    assert attempt.budget is not None
    assert 0 < attempt.budget < 2.1  # the transport rounds it up


async def test_a_hanging_call_does_not_hold_the_servers_end(firestore_server: FirestoreServer) -> None:
    firestore_server.faults.add("*", faults.hang(), times=None)
    async with grpc.aio.insecure_channel(firestore_server.address) as channel:
        call: Any = channel.unary_unary("/google.firestore.v1.Firestore/Commit")
        waiting = asyncio.ensure_future(call(b"", timeout=60))
        await eventually(lambda: bool(firestore_server.counts.attempts), "the call arrives")
        async with asyncio.timeout(30):
            await firestore_server.stop()
            with pytest.raises(grpc.aio.AioRpcError):
                await waiting


async def test_a_stream_breaks_in_the_middle(firestore_client: AsyncClient, firestore_server: FirestoreServer) -> None:
    await put(firestore_client, {str(number): {} for number in range(5)})
    firestore_server.faults.add("RunQuery", faults.broken_stream(3))
    stream = firestore_client.collection(DEVICES).stream(retry=None, timeout=60)
    assert [(await anext(stream)).id for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(exceptions.ServiceUnavailable):
        await anext(stream)
    firestore_server.faults.add("BatchGetDocuments", faults.broken_stream(1))
    with pytest.raises(exceptions.ServiceUnavailable):
        async for _ in firestore_client.get_all(
            [firestore_client.document(f"{DEVICES}/{n}") for n in "012"], retry=None
        ):
            pass


async def test_latency(firestore_client: AsyncClient, firestore_server: FirestoreServer) -> None:
    await fields(firestore_client, D)
    firestore_server.faults.add("BatchGetDocuments", faults.latency(0.1))
    began = time.monotonic()
    await fields(firestore_client, D)
    assert time.monotonic() - began >= 0.1
    firestore_server.latency = 0.05
    began = time.monotonic()
    await fields(firestore_client, D)
    assert time.monotonic() - began >= 0.05


async def test_faults_for_some_requests_and_some_times(
    firestore_client: AsyncClient, firestore_server: FirestoreServer
) -> None:
    rule = firestore_server.faults.add(
        "Commit", faults.unavailable(), times=2, when=lambda request: request.writes[0].update.name.endswith("/d")
    )
    await commit(firestore_client, update(firestore_client, f"{DEVICES}/other", {}))
    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            await commit(firestore_client, update(firestore_client, D, {}))
    await commit(firestore_client, update(firestore_client, D, {}))
    assert rule.hits == 2
    firestore_server.faults.add("*", faults.unavailable(), times=None)
    firestore_server.faults.clear()
    await fields(firestore_client, D)


def test_faults_are_bounded_and_cross_processes() -> None:
    with pytest.raises(ValueError, match="latency"):
        faults.latency(11)
    with pytest.raises(ValueError, match="breaks with"):
        faults.Fault(results=1)
    for fault in (faults.unavailable(), faults.hang(after=True), faults.broken_stream(2), faults.latency(0.5)):
        assert faults.Fault.from_json(fault.to_json()) == fault


async def test_the_hottest_document(firestore_client: AsyncClient, firestore_server: FirestoreServer) -> None:
    assert firestore_server.counts.hottest() == ("", 0)
    for number in range(3):
        await put(firestore_client, {"hot": {"n": number}, f"cold{number}": {}})
    hottest, writes = firestore_server.counts.hottest()
    assert (hottest.rsplit("/", 1)[1], writes) == ("hot", 3)
    firestore_server.counts.write_times = {"slow": [0, 1_000_000, 2_000_000]}
    assert firestore_server.counts.hottest() == ("slow", 1)
