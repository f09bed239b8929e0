"""The stand-in as a process: its address, its control service, its end."""

import json
from collections.abc import AsyncIterator

import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud.firestore import AsyncClient

from tests.firestore_server import faults
from tests.support.firestore import FirestoreProcess, client_of


@pytest.fixture
async def client(firestore_process: FirestoreProcess) -> AsyncIterator[AsyncClient]:
    async with client_of(firestore_process.address) as client:
        yield client


async def test_control_reads_counts_and_sets_faults(firestore_process: FirestoreProcess, client: AsyncClient) -> None:
    document = client.document("tenants/t/devices/d")
    await document.create({"n": 1})
    await firestore_process.control.add_fault("BatchGetDocuments", faults.unavailable(), times=1)
    with pytest.raises(ServiceUnavailable):
        await document.get(retry=None)
    assert (await document.get(retry=None)).to_dict() == {"n": 1}
    counts = await firestore_process.control.counts()
    assert counts["rpcs"] == {"Commit": 1, "BatchGetDocuments": 2}
    assert (counts["reads"], counts["writes"], counts["deletes"]) == (1, 1, 0)
    outcomes = [attempt["outcome"] for attempt in await firestore_process.control.attempts()]
    assert outcomes == ["OK", "UNAVAILABLE", "OK"]
    (name,) = await firestore_process.control.write_times()
    assert [name] == await firestore_process.control.names()


async def test_stops_cleanly_and_leaves_its_counts(firestore_process: FirestoreProcess, client: AsyncClient) -> None:
    await client.document("tenants/t/devices/d").delete()
    counts = await firestore_process.stop()
    assert counts["deletes"] == 1
    assert json.loads(firestore_process.counts_file.read_text()) == counts
