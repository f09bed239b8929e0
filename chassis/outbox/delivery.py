"""One page's records on their way to their consumers, and what the answers mean for the next try."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.outbox.blocks import Blocks, is_away
from chassis.outbox.gauges import Gauges
from chassis.outbox.port import Behind, Deliver
from chassis.outbox.records import Record, behind_tenant
from chassis.resilience.deadline import within

AT_ONCE: Final = 8
"""Deliveries in progress at a time."""
WITHIN: Final = 5.0
"""Seconds for one delivery."""


@dataclass(slots=True)
class Outcome:
    """What became of a page. `refused` are the records to be parked, with how often they were refused and why."""

    acknowledged: list[Record] = field(default_factory=list)
    refused: list[tuple[Record, int, BaseException]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.acknowledged) + len(self.refused)


class Delivery:
    """Records to consumers by kind. Refusals up to `attempts` are waited out; then the record is to be parked."""

    def __init__(
        self, delivers: Mapping[str, Deliver], blocks: Blocks, gauges: Gauges, clock: Clock, attempts: int
    ) -> None:
        self._delivers = delivers
        self._blocks = blocks
        self._gauges = gauges
        self._clock = clock
        self._attempts = attempts
        self._log = structlog.get_logger("outbox.delivery")

    def held(self, lane: str) -> bool:
        """Whether the lane, its tenant or its kind is not to be tried now, or has no consumer here."""
        kind = lane.partition(".")[0]
        return kind not in self._delivers or self._blocks.holds(lane, behind_tenant(lane), kind)

    async def deliver(self, records: Iterable[Record]) -> Outcome:
        """Deliver what belongs together in one go, and no tenant behind another; records of a key are in order."""
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            groups.setdefault((record.effect.kind, record.effect.tenant), []).append(record)
        outcome = Outcome()
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(group: list[Record]) -> None:
            async with limit:
                await self._group(group, outcome)

        async with asyncio.TaskGroup() as together:
            for (kind, _), group in groups.items():
                if self._blocks.failing(kind):
                    await one(group)  # alone: it finds out for all whether the consumer is back
                else:
                    together.create_task(one(group))
        return outcome

    async def _group(self, records: Sequence[Record], outcome: Outcome) -> None:
        kind, tenant = records[0].effect.kind, behind_tenant(records[0].lane)
        answers: Sequence[BaseException | None]
        if self._blocks.holds(kind, tenant):
            answers = [Behind()] * len(records)  # meanwhile others found out
        else:
            answers = await self._answers(kind, records)
        away = [answer for answer in answers if answer is not None and is_away(answer)]
        acknowledged = answers.count(None)
        if acknowledged:
            self._blocks.clear(kind, tenant)
        if away:
            alone = acknowledged or not (isinstance(away[0], ApiError) and away[0].code is Code.UNAVAILABLE)
            self._blocks.fail(tenant if alone else kind, away[0])
            self._gauges.count(kind, "away", len(away))
            self._log.debug("consumer is away", kind=kind, failure=repr(away[0]))
        self._gauges.count(kind, "delivered", acknowledged)
        for record, answer in zip(records, answers, strict=True):
            if answer is None:
                self._blocks.clear(record.lane)
                self._blocks.settled(record.effect.id)
                outcome.acknowledged.append(record)
            elif not isinstance(answer, Behind) and not is_away(answer) and self._out_of_tries(record, answer, outcome):
                continue
            else:
                self._gauges.left(kind, record.created)

    def _out_of_tries(self, record: Record, refusal: BaseException, outcome: Outcome) -> bool:
        effect = record.effect
        times = self._blocks.refused(effect.id)
        self._gauges.count(effect.kind, "refused")
        self._log.warning(
            "side effect refused", id=effect.id, kind=effect.kind, key=effect.key, times=times, failure=repr(refusal)
        )
        if times < self._attempts:
            self._blocks.fail(record.lane, refusal)
            return False
        self._blocks.clear(record.lane)
        self._blocks.settled(effect.id)
        outcome.refused.append((record, times, refusal))
        return True

    async def _answers(self, kind: str, records: Sequence[Record]) -> Sequence[BaseException | None]:
        """One for each, whatever the consumer does."""
        try:
            async with within(self._clock, WITHIN):
                answers = await self._delivers[kind]([record.effect for record in records])
            return [answer for answer, _ in zip(answers, records, strict=True)]
        except Exception as failure:  # noqa: BLE001 - the outermost layer of a consumer: its bug blocks its own keys only
            return [failure] * len(records) if is_away(failure) else _first_of_each_lane(records, failure)


def _first_of_each_lane(records: Sequence[Record], failure: BaseException) -> list[BaseException | None]:
    """A failure of all is a refusal of those that were to be first; the others were behind them."""
    lanes: set[str] = set()
    answers: list[BaseException | None] = []
    for record in records:
        answers.append(Behind() if record.lane in lanes else failure)
        lanes.add(record.lane)
    return answers
