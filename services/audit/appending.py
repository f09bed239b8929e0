"""Appending entries: each is durable when it is acknowledged, and there once, however often it is sent."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import (
    ACKNOWLEDGEMENT_DURABLE,
    Acknowledgement,
    AppendEntryRequest,
    AppendEntryResponse,
    BatchAppendEntriesRequest,
    BatchAppendEntriesResponse,
    BatchAppendEntriesResult,
)
from chassis.api.batches import chunks, problem_of
from chassis.api.ids import new_id
from chassis.api.validation import compile_validator
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.store.encoding import EPOCH
from chassis.store.port import Create, DocumentExists, DocumentStore, Write
from services.audit import entry as rules
from services.audit.acknowledging import Acknowledger, Appended
from services.audit.leaf import SALT_BYTES, leaf_of, personal_hash
from services.audit.records import arrived, entry_fields, entry_key, stored
from services.audit.sequencer import MOST, Sequencer

TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Of entries of one commit, which may have 10 MiB."""

_ATTEMPTS: Final = 10
_AT_A_TIME: Final = 32
"""Entries prepared without letting others run: about 1 ms."""

_TROUBLE: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})
"""What makes a batch fail as a whole when it met nothing else: then it can be tried again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry with all that is to be stored of it. `given` is what the caller said."""

    entry: Entry
    given: Entry
    salt: bytes
    personal: bytes
    leaf: bytes


class Appender:
    """`most` is how many entries arrive together: no more than are sequenced together."""

    def __init__(
        self,
        documents: DocumentStore,
        sequencer: Sequencer,
        acknowledger: Acknowledger,
        most: int,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._documents = documents
        self._sequencer = sequencer
        self._acknowledger = acknowledger
        self._most = min(most, MOST)
        self._clock = clock
        self._random_bytes = random_bytes
        self._last = EPOCH
        self._validate = compile_validator(Entry.DESCRIPTOR)

    async def append(self, tenant: str, request: AppendEntryRequest) -> AppendEntryResponse:
        """Raises IDEMPOTENCY_KEY_REUSED, DEADLINE_EXCEEDED when the entry has not come as far as asked in time."""
        outcome = (await self.store(tenant, [request.entry]))[0]
        if isinstance(outcome, ApiError):
            raise outcome
        return (await self._acknowledger.answers(tenant, [outcome], _level(request.acknowledgement)))[0]

    async def append_batch(self, tenant: str, request: BatchAppendEntriesRequest) -> BatchAppendEntriesResponse:
        """Each for itself. Raises what the store raises when all of them failed so, and DEADLINE_EXCEEDED as `append`."""
        given = request.entries
        outcomes: dict[int, Appended | ApiError] = {}
        accepted: dict[int, Entry] = {}
        for at, entry in enumerate(given):
            refused = self._refused(entry)
            if refused is None:
                accepted[at] = entry
            else:
                outcomes[at] = refused
            if at % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
        outcomes |= zip(accepted, await self.store(tenant, list(accepted.values())), strict=True)
        trouble = [each for at in accepted if isinstance(each := outcomes[at], ApiError) and each.code in _TROUBLE]
        if trouble and len(trouble) == len(accepted):
            raise trouble[0]
        appended = {at: each for at, each in outcomes.items() if isinstance(each, Appended)}
        level = _level(request.acknowledgement)
        answers = dict(
            zip(appended, await self._acknowledger.answers(tenant, list(appended.values()), level), strict=True)
        )
        results = (_result(answers.get(at), outcomes[at]) for at in range(len(given)))
        return BatchAppendEntriesResponse(results=results)

    async def store(self, tenant: str, given: Sequence[Entry]) -> list[Appended | ApiError]:
        """What became of each of these valid entries."""
        outcomes: dict[int, Appended | ApiError] = {}
        firsts: dict[str, int] = {}
        again: dict[int, int] = {}
        prepared: dict[int, Prepared] = {}
        for at, entry in enumerate(given):
            first = firsts.setdefault(entry.idempotency_key, at)
            if first == at:
                prepared[at] = self.prepare(tenant, entry)
            else:
                again[at] = first
            if at % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
        for chunk in chunks(prepared, self._most, TOGETHER_BYTES, lambda item: item.entry.ByteSize()):
            outcomes |= await self._commit(tenant, chunk)
        for at, first in again.items():
            outcome = outcomes[first]
            if isinstance(outcome, Appended) and not rules.same(outcome.entry, given[at]):
                outcome = rules.key_reused()
            outcomes[at] = outcome
        return [outcomes[at] for at in range(len(given))]

    def prepare(self, tenant: str, given: Entry) -> Prepared:
        """The entry as it will be stored, with its hashes. No I/O."""
        entry = rules.recorded(tenant, given, self._clock.now())
        salt = self._random_bytes(SALT_BYTES)
        personal = personal_hash(salt, entry.actor)
        return Prepared(entry, given, salt, personal, leaf_of(entry, personal))

    def writes(self, tenant: str, prepared: Sequence[Prepared]) -> tuple[str, list[Write]]:
        """The arrival of these entries, and the writes that make them durable: all in one commit."""
        arrival = new_id(self._random_bytes)
        leaves = b"".join(each.leaf for each in prepared)
        writes: list[Write] = [
            Create(
                entry_key(tenant, each.entry.entry_id),
                entry_fields(each.entry, each.salt, each.personal, each.leaf, arrival, place),
            )
            for place, each in enumerate(prepared)
        ]
        writes.append(arrived(arrival, tenant, self._now(), [each.entry.entry_id for each in prepared], leaves))
        return arrival, writes

    def arrived(self, tenant: str, count: int) -> None:
        """Writes as above were committed."""
        self._sequencer.arrived(tenant, count)

    def _now(self) -> datetime:
        """The time, later than any before: what this process appends is in the log in that order, whatever its clock does."""
        self._last = max(self._clock.now(), self._last + timedelta(microseconds=1))
        return self._last

    def _refused(self, entry: Entry) -> ApiError | None:
        """The field rules, for each entry by itself: a bad one fails alone."""
        try:
            self._validate(entry)
        except ApiError as refusal:
            return refusal
        return None

    async def _commit(self, tenant: str, chunk: Mapping[int, Prepared]) -> dict[int, Appended | ApiError]:
        """Commit the entries together, without those that turn out to be there already."""
        left = dict(chunk)
        outcomes: dict[int, Appended | ApiError] = {}
        for _ in range(_ATTEMPTS):
            if not left:
                return outcomes
            arrival, writes = self.writes(tenant, list(left.values()))
            try:
                await self._documents.commit(writes)
            except DocumentExists:
                there = await self._there(tenant, left)
                outcomes |= there
                left = {at: each for at, each in left.items() if at not in there}
            except ApiError as failure:
                return outcomes | dict.fromkeys(left, failure)
            else:
                self.arrived(tenant, len(left))
                made = ((at, Appended(each.entry, arrival, place)) for place, (at, each) in enumerate(left.items()))
                return outcomes | dict(made)
        return outcomes | dict.fromkeys(left, _contended())

    async def _there(self, tenant: str, items: Mapping[int, Prepared]) -> dict[int, Appended | ApiError]:
        """The outcomes of those that were appended before: a repetition gets its first entry, another one is refused."""
        try:
            found = await self._documents.get_many([entry_key(tenant, each.entry.entry_id) for each in items.values()])
        except ApiError as failure:
            return dict.fromkeys(items, failure)
        outcomes: dict[int, Appended | ApiError] = {}
        for (at, item), document in zip(items.items(), found, strict=True):
            if document is None:
                continue
            first = stored(document)
            if first.entry is not None and not rules.same(first.entry, item.given):
                outcomes[at] = rules.key_reused()
            else:
                entry = first.entry or Entry(entry_id=item.entry.entry_id)
                outcomes[at] = Appended(entry, first.arrival, first.place)
        return outcomes


def _level(asked: Acknowledgement.ValueType) -> Acknowledgement.ValueType:
    return asked or ACKNOWLEDGEMENT_DURABLE


def _contended() -> ApiError:
    return ApiError(Code.ABORTED, "CONTENTION", "The same entries are being appended by others: try again.")


def _result(answer: AppendEntryResponse | None, outcome: Appended | ApiError) -> BatchAppendEntriesResult:
    if not isinstance(outcome, ApiError):
        return BatchAppendEntriesResult(appended=answer)
    return BatchAppendEntriesResult(error=problem_of(outcome))
