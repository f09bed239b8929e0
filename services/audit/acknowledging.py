"""Answers to appends: as far as was asked, or DEADLINE_EXCEEDED, with the entries in the log all the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import (
    ACKNOWLEDGEMENT_DURABLE,
    ACKNOWLEDGEMENT_INTEGRATED,
    ACKNOWLEDGEMENT_SEQUENCED,
    Acknowledgement,
    AppendEntryResponse,
)
from chassis.clock import Clock
from chassis.errors import ApiError, deadline_exceeded
from chassis.resilience.deadline import within
from services.audit.checkpoints import Checkpoints, Signed
from services.audit.placements import Placements
from services.audit.proofs import Proofs
from services.audit.sequencer import Sequencer

LONGEST: Final = 60.0
"""Seconds of waiting, where the call has no deadline."""

_AGAIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry that is in the store: with which arrival, and as which of it."""

    entry: Entry
    arrival: str
    place: int


class Acknowledger:
    def __init__(
        self, sequencer: Sequencer, placements: Placements, checkpoints: Checkpoints, proofs: Proofs, clock: Clock
    ) -> None:
        self._sequencer = sequencer
        self._placements = placements
        self._checkpoints = checkpoints
        self._proofs = proofs
        self._clock = clock

    async def answers(
        self, tenant: str, appended: Sequence[Appended], level: Acknowledgement.ValueType
    ) -> list[AppendEntryResponse]:
        """One answer each, once all have come as far as that level."""
        if not appended:
            return []
        if level == ACKNOWLEDGEMENT_DURABLE:
            return [AppendEntryResponse(entry=each.entry, acknowledgement=level) for each in appended]
        async with within(self._clock, LONGEST, _not_that_far):
            placed = await self._sequenced(tenant, {each.arrival for each in appended})
            answers = [_answer(each, placed) for each in appended]
            if level == ACKNOWLEDGEMENT_INTEGRATED:
                newest = max(answer.entry.sequence for answer in answers)
                signed = await self._signed(tenant, newest + 1)
                for answer in answers:
                    answer.acknowledgement = level
                    proof = await self._proofs.inclusion(tenant, answer.entry.sequence, signed)
                    answer.inclusion_proof.CopyFrom(proof)
        return answers

    async def _sequenced(self, tenant: str, arrivals: set[str]) -> Mapping[str, int]:
        while True:
            placed = await self._placements.of(arrivals)
            if len(placed) == len(arrivals):
                return placed
            # Whoever else is at it, to try costs at most a commit in vain.
            if not await self._sequencer.drain(tenant) and len(await self._placements.of(arrivals)) < len(arrivals):
                await self._clock.sleep(_AGAIN)

    async def _signed(self, tenant: str, size: int) -> Signed:
        while True:
            newest = await self._checkpoints.newest(tenant)
            if newest is not None and newest.size >= size:
                return newest
            await self._checkpoints.hasten(tenant)


def _answer(appended: Appended, placed: Mapping[str, int]) -> AppendEntryResponse:
    answer = AppendEntryResponse(entry=appended.entry, acknowledgement=ACKNOWLEDGEMENT_SEQUENCED)
    answer.entry.sequence = placed[appended.arrival] + appended.place
    return answer


def _not_that_far() -> ApiError:
    return deadline_exceeded("The entry is stored, but had not come as far as was asked when the deadline passed.")
