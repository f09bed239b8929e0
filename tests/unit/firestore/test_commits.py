"""Preconditions, atomicity and times of commits."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.firestore import SERVER_TIMESTAMP, AsyncClient

from tests.firestore_server import FirestoreServer
from tests.unit.firestore.calls import commit, delete, fields, update, update_time

D, E = "tenants/t/devices/d", "tenants/t/devices/e"
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_create_of_what_exists(firestore_client: AsyncClient) -> None:
    await commit(firestore_client, update(firestore_client, D, {"n": 1}, exists=False))
    with pytest.raises(exceptions.AlreadyExists, match="Document already exists: projects/test/"):
        await commit(firestore_client, update(firestore_client, D, {"n": 2}, exists=False))
    assert await fields(firestore_client, D) == {"n": 1}


async def test_update_of_what_is_missing(firestore_client: AsyncClient) -> None:
    for write in (update(firestore_client, D, {}, exists=True), delete(firestore_client, D, exists=True)):
        with pytest.raises(exceptions.NotFound, match="No document to update"):
            await commit(firestore_client, write)


async def test_versions(firestore_client: AsyncClient, firestore_server: FirestoreServer) -> None:
    first = (await commit(firestore_client, update(firestore_client, D, {"n": 1}))).write_results[0].update_time
    second = await commit(firestore_client, update(firestore_client, D, {"n": 2}, update_time=first))
    for write in (
        update(firestore_client, D, {"n": 3}, update_time=first),
        delete(firestore_client, D, update_time=first),
        update(firestore_client, E, {"n": 3}, update_time=first),
    ):
        with pytest.raises(exceptions.FailedPrecondition, match="the stored version"):
            await commit(firestore_client, write)
    await commit(firestore_client, delete(firestore_client, D, update_time=second.write_results[0].update_time))
    assert not firestore_server.documents.names()


async def test_a_version_that_is_yet_to_come(firestore_client: AsyncClient) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(exceptions.InvalidArgument, match="future"):
        await commit(firestore_client, update(firestore_client, D, {"n": 3}, update_time=tomorrow))


async def test_all_or_nothing(firestore_client: AsyncClient, firestore_server: FirestoreServer) -> None:
    with pytest.raises(exceptions.NotFound):
        await commit(
            firestore_client,
            update(firestore_client, D, {"n": 1}),
            update(firestore_client, E, {"n": 1}, exists=True),
        )
    assert not firestore_server.documents.names()
    assert firestore_server.counts.writes == 0


async def test_one_time_a_commit_and_strictly_later_ones(firestore_client: AsyncClient) -> None:
    last = _LONG_AGO
    for number in range(20):
        answer = await commit(
            firestore_client, update(firestore_client, D, {"n": number}), update(firestore_client, E, {"n": number})
        )
        assert {result.update_time for result in answer.write_results} == {answer.commit_time}
        assert answer.commit_time > last
        assert answer.commit_time.nanosecond % 1000 == 0
        last = answer.commit_time
    assert await update_time(firestore_client, D) == last


async def test_times_grow_whatever_the_clock_does(
    firestore_client: AsyncClient, firestore_server: FirestoreServer
) -> None:
    firestore_server.skew = timedelta(hours=1)
    ahead = await commit(firestore_client, update(firestore_client, D, {"n": 1}))
    assert ahead.commit_time > datetime.now(UTC) + timedelta(minutes=59)
    firestore_server.skew = timedelta(0)
    assert (await commit(firestore_client, update(firestore_client, D, {"n": 2}))).commit_time > ahead.commit_time


@pytest.mark.parametrize("content", [{"n": 1, "m": {"a": 1, "b": [1, 2]}}, {"n": math.nan}, {}])
async def test_a_write_that_changes_nothing_keeps_its_version(
    firestore_client: AsyncClient, content: dict[str, Any]
) -> None:
    first = await commit(firestore_client, update(firestore_client, D, content))
    again = await commit(firestore_client, update(firestore_client, D, content))
    assert again.commit_time > first.commit_time
    assert again.write_results[0].update_time == first.commit_time
    assert await update_time(firestore_client, D) == first.commit_time


async def test_zero_and_minus_zero_are_two_contents(firestore_client: AsyncClient) -> None:
    await commit(firestore_client, update(firestore_client, D, {"n": 0.0}))
    answer = await commit(firestore_client, update(firestore_client, D, {"n": -0.0}))
    assert answer.write_results[0].update_time == answer.commit_time


async def test_deleting_and_creating_anew_gives_a_new_version(firestore_client: AsyncClient) -> None:
    first = await commit(firestore_client, update(firestore_client, D, {"n": 1}))
    answer = await commit(firestore_client, delete(firestore_client, D))
    assert not answer.write_results[0]._pb.HasField("update_time")
    await commit(firestore_client, delete(firestore_client, D))
    await commit(firestore_client, update(firestore_client, D, {"n": 1}, exists=False))
    snapshot = await firestore_client.document(D).get()
    assert snapshot.create_time == snapshot.update_time
    assert snapshot.update_time is not None
    assert snapshot.update_time > first.commit_time


async def test_an_update_replaces_whole_and_keeps_the_time_of_creation(firestore_client: AsyncClient) -> None:
    first = await commit(firestore_client, update(firestore_client, D, {"n": 1, "old": True}))
    await commit(firestore_client, update(firestore_client, D, {"n": 2}))
    snapshot = await firestore_client.document(D).get()
    assert snapshot.to_dict() == {"n": 2}
    assert snapshot.create_time == first.commit_time


async def test_writes_of_a_commit_apply_in_order(firestore_client: AsyncClient) -> None:
    await commit(
        firestore_client,
        update(firestore_client, D, {"n": 1}, exists=False),
        delete(firestore_client, D, exists=True),
        update(firestore_client, D, {"n": 2}, exists=False),
    )
    assert await fields(firestore_client, D) == {"n": 2}


async def test_timestamps_are_kept_to_the_microsecond(firestore_client: AsyncClient) -> None:
    write = update(firestore_client, D, {"at": datetime(2026, 1, 1, tzinfo=UTC), "in": [{"at": _LONG_AGO}]})
    write._pb.update.fields["at"].timestamp_value.nanos = 123_456_789
    write._pb.update.fields["in"].array_value.values[0].map_value.fields["at"].timestamp_value.nanos = 999
    await commit(firestore_client, write)
    content = await fields(firestore_client, D)
    assert content is not None
    # Compared as text: the client's own type of datetime keeps nanoseconds, and looks away when it is compared.
    assert content["at"].rfc3339() == "2026-01-01T00:00:00.123456Z"
    assert content["in"][0]["at"].rfc3339() == "2020-01-01T00:00:00.000000Z"


async def test_what_the_adapter_must_not_use_is_refused(firestore_client: AsyncClient) -> None:
    await commit(firestore_client, update(firestore_client, D, {"n": 1}))
    document = firestore_client.document(D)
    for call in (document.update({"n": 2}), document.set({"n": 2}, merge=True), document.set({"n": SERVER_TIMESTAMP})):
        with pytest.raises(exceptions.InvalidArgument, match="not supported by this stand-in"):
            await call
    with pytest.raises(exceptions.MethodNotImplemented):
        await firestore_client.transaction()._begin()


async def test_another_database_and_another_project(firestore_client: AsyncClient) -> None:
    with pytest.raises(exceptions.NotFound, match="The database other does not exist for project test"):
        await commit(firestore_client, database="projects/test/databases/other")
    with pytest.raises(exceptions.PermissionDenied):
        await commit(firestore_client, database="projects/other/databases/(default)")
    elsewhere = update(firestore_client, D, {})
    elsewhere.update.name = elsewhere.update.name.replace("(default)", "other")
    with pytest.raises(exceptions.InvalidArgument):
        await commit(firestore_client, elsewhere)
