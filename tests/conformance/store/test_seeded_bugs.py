"""The suite is able to fail: stores with one bug each, and the test that catches it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.store.port import Committed, Delete, Document, Query, Update, Write
from chassis.store.sqlite import SqliteStore
from tests.conformance.store.backend import SCHEMA
from tests.conformance.store.commits import Commits
from tests.conformance.store.queries import Queries
from tests.conformance.store.test_sqlite import BUDGET


class IgnoresVersions(SqliteStore):
    async def commit(self, writes: Sequence[Write]) -> Committed:
        return await super().commit(
            [replace(write, version=None) if isinstance(write, Update | Delete) else write for write in writes]
        )


class AppliesOneByOne(SqliteStore):
    async def commit(self, writes: Sequence[Write]) -> Committed:
        done = [await SqliteStore.commit(self, [write]) for write in writes]
        return Committed(tuple(each.versions[0] for each in done), done[-1].commit_time)


class CountsVersions(SqliteStore):
    async def commit(self, writes: Sequence[Write]) -> Committed:
        answer = await super().commit(writes)
        return replace(answer, versions=tuple(f"{each}{n}" for n, each in enumerate(answer.versions)))


class HashesVersions(SqliteStore):
    async def commit(self, writes: Sequence[Write]) -> Committed:
        answer = await super().commit(writes)
        return replace(answer, versions=tuple(each and each[::-1] for each in answer.versions))


class RepeatsTheCursor(SqliteStore):
    async def query(self, query: Query) -> list[Document]:
        found = await super().query(query)
        if query.after is None or not found:
            return found
        seen = await super().query(replace(query, after=None, limit=1))
        return [*seen, *found][: query.limit]


class CrossesTenants(SqliteStore):
    async def query(self, query: Query) -> list[Document]:
        return [*await super().query(query), *await super().query(replace(query, tenant="acmee"))]


@pytest.mark.parametrize(
    ("buggy", "test"),
    [
        (IgnoresVersions, Commits().test_the_version_changes_with_every_write_and_is_checked),
        (IgnoresVersions, Commits().test_no_update_is_lost),
        (AppliesOneByOne, Commits().test_a_batch_is_applied_whole_or_not_at_all),
        (CountsVersions, Commits().test_all_writes_of_a_commit_share_one_version),
        (HashesVersions, Commits().test_versions_compare_as_text_in_the_order_of_the_commits),
        (RepeatsTheCursor, Queries().test_pages_skip_and_repeat_nothing_under_inserts),
        (CrossesTenants, Queries().test_no_query_crosses_tenants),
    ],
)
async def test_the_suite_catches(
    tmp_path: Path, buggy: type[SqliteStore], test: Callable[[SqliteStore], Awaitable[None]]
) -> None:
    store = await buggy.open(tmp_path / "store.db", SCHEMA, clock=SystemClock(), budget=BUDGET)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await test(store)
    await store.close()
