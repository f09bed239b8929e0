"""The tests of faults are able to fail: stores with one bug each, and the test that catches it."""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from grpc.aio import AioRpcError

from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_commits import PendingCommit, Seen
from chassis.store.firestore_indexes import definition
from chassis.store.firestore_wire import Wire
from chassis.store.port import Committed
from chassis.store.retry import Retrier
from tests.conformance.store.backend import SCHEMA, things
from tests.firestore_server import FirestoreServer
from tests.integration.store import test_firestore_faults as caught
from tests.support.firestore import serving


class ForgetsItsCommits(FirestoreStore):
    async def _look(self, names: Iterable[str], left: float) -> dict[str, Seen]:
        return {name: replace(seen, marker=b"") for name, seen in (await super()._look(names, left)).items()}


class TakesAnAnswerForSure(FirestoreStore):
    async def _committed(self, pending: PendingCommit, left: float) -> Committed:
        pending.ambiguous = False
        return await super()._committed(pending, left)


class _KeepsWhatCame(Wire):
    async def run_query(self, parent: str, query: Any, seconds: float) -> list[Any]:
        came: list[Any] = []
        with suppress(AioRpcError):
            call = self._run_query(_request(parent, query), timeout=seconds, metadata=self._metadata)
            async for answer in call:
                came += [answer]
        return came


def _request(parent: str, query: Any) -> Any:
    from google.cloud.firestore_v1.types import RunQueryRequest  # noqa: PLC0415

    return RunQueryRequest.pb()(parent=parent, structured_query=query)


class KeepsHalfAPage(FirestoreStore):
    def __init__(self, wire: Wire, *rest: Any, **named: Any) -> None:
        wire.__class__ = _KeepsWhatCame
        super().__init__(wire, *rest, **named)


class NeverGivesUp(FirestoreStore):
    def __init__(self, *rest: Any, **named: Any) -> None:
        super().__init__(*rest, **named)
        self._retrier = Retrier(SystemClock(), lambda: 0.0, 9)


CASES: Sequence[tuple[type[FirestoreStore], Callable[[FirestoreServer, FirestoreStore], Awaitable[None]]]] = (
    (ForgetsItsCommits, lambda server, store: caught.TestAnswerLost().test_a_create_is_recognized(server, store, 1)),
    (TakesAnAnswerForSure, caught.TestAnswerLost().test_when_nobody_can_tell_nobody_is_told),
    (KeepsHalfAPage, lambda server, store: caught.test_a_stream_that_breaks_is_begun_anew(server, store, 1, things())),
    (NeverGivesUp, caught.test_storms_of_aborts_end_as_a_conflict_after_three_attempts),
)


@pytest.mark.parametrize(("buggy", "test"), CASES, ids=[buggy.__name__ for buggy, _ in CASES])
async def test_the_suite_catches(
    buggy: type[FirestoreStore],
    test: Callable[[FirestoreServer, FirestoreStore], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(indexes=definition({"": SCHEMA})) as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        store = await buggy.open(
            "test", "(default)", SCHEMA, clock=SystemClock(), budget=caught.BUDGET, random_bytes=secrets.token_bytes
        )
        with pytest.raises((AssertionError, pytest.fail.Exception, ApiError)):
            await test(server, store)
        await store.close()
