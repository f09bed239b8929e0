"""What must hold over any history holds; and with a bug sown into the relay it does not."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from chassis.outbox.backlog import Backlog, Page
from chassis.outbox.records import Record, pending_after, record_of
from chassis.outbox.relay import Relay
from chassis.store.port import Delete
from tests.unit.outbox.machine import Machine

_FULL = settings(max_examples=15, stateful_step_count=25)
_FIRST = settings(max_examples=100, stateful_step_count=25, phases=[Phase.generate])
"""Until the first failure, however long its history."""


class RemovesFirst(Relay):
    async def _work_off(self, lanes: Mapping[str, Sequence[Record]]) -> int:
        removals = [Delete(record.document) for records in lanes.values() for record in records]
        if removals:
            await self._documents.commit(removals)
        return await super()._work_off(lanes)


class TakesPagesAsTheyCome(Relay):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._backlog = _Cut(self._documents, self._backlog._batch)


class _Cut(Backlog):
    async def page(self, after: str) -> Page:
        found = [record_of(each) for each in await self._documents.query(pending_after(after, self._batch))]
        lanes: dict[str, list[Record]] = {}
        for record in found:
            lanes.setdefault(record.lane, []).append(record)
        return Page(lanes, "", more=len(found) == self._batch)


class LeavesOrderToIds(Relay):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._backlog = _ById(self._documents, self._backlog._batch)


class _ById(Backlog):
    async def page(self, after: str) -> Page:
        page = await super().page(after)
        for records in page.lanes.values():
            records.sort(key=lambda record: record.effect.id)
        return page


class ParksInPlace(Relay):
    async def _park(self, record: Record, times: int, refusal: BaseException) -> None:
        self._blocks.fail(record.lane, refusal)


class RemovesWhatWasRefused(Relay):
    async def _park(self, record: Record, times: int, refusal: BaseException) -> None:
        await self._documents.commit([Delete(record.document)])


def test_nothing_is_lost_and_order_holds() -> None:
    run_state_machine_as_test(Machine, settings=_FULL)


@pytest.mark.parametrize(
    "buggy", [RemovesFirst, TakesPagesAsTheyCome, LeavesOrderToIds, ParksInPlace, RemovesWhatWasRefused]
)
def test_a_bug_is_found(buggy: type[Relay]) -> None:
    machine = type("Buggy", (Machine,), {"relay": buggy})
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(machine, settings=_FIRST)
