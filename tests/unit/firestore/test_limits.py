"""Sizes, names and nesting: the last that is allowed, and the first that is not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.firestore import AsyncClient, GeoPoint

from tests.firestore_server import FirestoreServer, Limits
from tests.support.firestore import client_of, serving
from tests.unit.firestore.calls import commit, fields, update

D = "users/jeff/tasks/my_task_id"


def _nested(levels: int, *, array: bool = False) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if array and level % 2 else {"m": value}
    return value


_EXAMPLE = {"type": "Personal", "done": False, "priority": 1, "description": "Learn Cloud Firestore"}


@pytest.mark.parametrize(
    ("content", "exact"),
    [
        (_EXAMPLE, 147),
        ({"m": {"a": 1}}, 44 + 32 + 2 + (2 + 8 + 32)),  # a map counts as a document does
        ({"v": ["é", b"12", None, True, 1.5, datetime(2026, 1, 1, tzinfo=UTC)]}, 44 + 32 + 2 + 3 + 2 + 1 + 1 + 8 + 8),
        ({"g": GeoPoint(1, 2)}, 44 + 32 + 2 + 16),
    ],
)
async def test_the_published_size(content: dict[str, Any], exact: int) -> None:
    for size, fits in ((exact, True), (exact - 1, False)):
        async with serving(limits=Limits(document_bytes=size)) as server, client_of(server.address) as client:
            if fits:
                await commit(client, update(client, D, content))
            else:
                with pytest.raises(exceptions.InvalidArgument, match=rf"size \({exact} bytes\) exceeds the maximum"):
                    await commit(client, update(client, D, content))


async def test_a_mebibyte_a_document(firestore_client: AsyncClient) -> None:
    room = (1 << 20) - 32 - 44 - len("b") - 1
    await commit(firestore_client, update(firestore_client, D, {"b": b"x" * room}))
    with pytest.raises(exceptions.InvalidArgument, match="exceeds the maximum allowed size of 1,048,576 bytes"):
        await commit(firestore_client, update(firestore_client, D, {"b": b"x" * (room + 1)}))


async def test_ten_mebibytes_a_request(firestore_client: AsyncClient) -> None:
    writes = [update(firestore_client, f"{D}{number}", {"b": b"x" * 1_000_000}) for number in range(11)]
    await commit(firestore_client, *writes[:10])
    with pytest.raises(exceptions.InvalidArgument, match="Request payload size exceeds the limit"):
        await commit(firestore_client, *writes)


async def test_writes_a_commit() -> None:
    async with serving(limits=Limits(writes=2)) as server, client_of(server.address) as client:
        writes = [update(client, f"{D}{number}", {}) for number in range(3)]
        await commit(client, *writes[:2])
        with pytest.raises(exceptions.InvalidArgument, match="maximum 2 writes allowed per request"):
            await commit(client, *writes)


@pytest.mark.parametrize("array", [False, True])
async def test_twenty_levels(firestore_client: AsyncClient, array: bool) -> None:  # noqa: FBT001 - a parameter of the test
    await commit(firestore_client, update(firestore_client, D, {"v": _nested(20, array=array)}))
    assert await fields(firestore_client, D) == {"v": _nested(20, array=array)}
    with pytest.raises(exceptions.InvalidArgument, match="deeper than 20"):
        await commit(firestore_client, update(firestore_client, D, {"v": _nested(21, array=array)}))


@pytest.fixture(scope="module")
def names() -> dict[str, bool]:
    return {
        "plain": True,
        "with space": True,
        "dots.in.it": True,
        "ünïcode": True,
        "x" * 1500: True,
        "__": True,
        "____": False,
        "x" * 1501: False,
        "é" * 751: False,
        ".": False,
        "..": False,
        "__reserved__": False,
        "": False,
    }


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    server: FirestoreServer
    async with serving() as server, client_of(server.address) as client:
        yield client


async def test_document_ids(client: AsyncClient, names: dict[str, bool]) -> None:
    for each, allowed in names.items():
        if allowed:
            await commit(client, update(client, f"tasks/{each}", {}))
        else:
            with pytest.raises(exceptions.InvalidArgument):
                await commit(client, update(client, f"tasks/{each}", {}))


async def test_field_names(client: AsyncClient, names: dict[str, bool]) -> None:
    dotted = {".": True, "..": True, "sl/ash": True, "`": True}
    for each, allowed in {**names, **dotted}.items():
        for content in ({each: 1}, {"m": {each: 1}}):
            if allowed:
                await commit(client, update(client, D, content))
                assert await fields(client, D) == content
            else:
                with pytest.raises(exceptions.InvalidArgument):
                    await commit(client, update(client, D, content))


@pytest.mark.parametrize("path", ["tasks", "tasks/a/b", "tasks//a/b"])
async def test_paths_of_collections_and_ids(client: AsyncClient, path: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await commit(client, update(client, path, {}))


async def test_an_array_in_an_array(client: AsyncClient) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="array value in an array value"):
        await commit(client, update(client, D, {"v": [[1]]}))
    await commit(client, update(client, D, {"v": [{"w": [1]}]}))
