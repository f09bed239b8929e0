"""Erasing personal data: the actor and the salt of its hash go, everything that is proven stays.

What was erased is recorded in the commit that erases it, without saying whose it was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Entry
from bas.audit.v2.audit_service_pb2 import ErasePersonalDataResponse
from chassis.api.ids import new_id
from chassis.context import Caller
from chassis.errors import Violation, invalid_argument
from chassis.store.port import DocumentStore, Filter, Op, PreconditionFailed, Query, VersionConflict
from services.audit.appending import Appender
from services.audit.reading import Reader
from services.audit.readings import attribute
from services.audit.recent import Recent
from services.audit.records import ACTOR, ENTRIES, NEWEST, Stored, erased, stored

ACTION_ERASED: Final = "audit.personal-data-erased"

MOST: Final = 490
"""Entries of one call: with the record of it, they are one commit of 500 writes unless they are large."""

_STEP: Final = 100
_TOGETHER_BYTES: Final = 4 * 1024 * 1024
_ATTEMPTS: Final = 10


class Eraser:
    def __init__(
        self,
        documents: DocumentStore,
        reader: Reader,
        appender: Appender,
        recent: Recent,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._documents = documents
        self._reader = reader
        self._appender = appender
        self._recent = recent
        self._random_bytes = random_bytes

    async def erase(self, caller: Caller, actor: str, entry_id: str) -> ErasePersonalDataResponse:
        """Raises INVALID_ARGUMENT unless one of both is named, ENTRY_NOT_FOUND."""
        if bool(actor) == bool(entry_id):
            says = "must be given, or entry_id, and not both"
            raise invalid_argument(Violation("actor", says), Violation("entry_id", says.replace("entry_id", "actor")))
        lost: PreconditionFailed | None = None
        for _ in range(_ATTEMPTS):
            found, more = await self._found(caller.tenant, actor, entry_id)
            try:
                count = await self._erase(caller, found, entry_id)
            except PreconditionFailed as conflict:
                lost = conflict
            else:
                return ErasePersonalDataResponse(erased_count=count, more=more)
        raise lost or VersionConflict(found[0].key)

    async def _found(self, tenant: str, actor: str, entry_id: str) -> tuple[list[Stored], bool]:
        """The entries that are meant and have personal data, and whether there may be more."""
        if entry_id:
            held = await self._reader.read(tenant, entry_id)
            return ([held] if _is_personal(held) else []), False
        found: list[Stored] = []
        after = None
        weight = 0
        while len(found) < MOST:
            step = min(_STEP, MOST - len(found))
            query = Query(tenant, ENTRIES, (Filter(ACTOR, Op.EQ, actor),), NEWEST, after, step)
            page = await self._documents.query(query)
            found += map(stored, page)
            if len(page) < step:
                return found, False
            weight += sum(_weight(each) for each in found[-len(page) :])
            if weight >= _TOGETHER_BYTES:
                return found, True
            after = (page[-1].fields["time"], page[-1].key.id)
        return found, True

    async def _erase(self, caller: Caller, found: Sequence[Stored], entry_id: str) -> int:
        count = 0
        for some in _portions(found):
            record = self._appender.prepare(caller.tenant, self._record(caller, len(some), entry_id))
            _, writes = self._appender.writes(caller.tenant, [record])
            await self._documents.commit([*map(erased, some), *writes])
            self._appender.arrived(caller.tenant, 1)
            count += len(some)
        if count:
            await self._recent.forget(caller.tenant)
        return count

    def _record(self, caller: Caller, count: int, entry_id: str) -> Entry:
        entry = Entry(
            idempotency_key=f"erasure-{new_id(self._random_bytes)}",
            action=ACTION_ERASED,
            outcome=OUTCOME_SUCCESS,
            metadata={"entries": str(count)},
        )
        attribute(entry, caller)
        entry.resource.type = "audit-entry" if entry_id else "audit-actor"
        entry.resource.id = entry_id
        return entry


def _is_personal(held: Stored) -> bool:
    return held.entry is not None and held.entry.HasField("actor")


def _weight(held: Stored) -> int:
    return 0 if held.entry is None else held.entry.ByteSize()


def _portions(found: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Parts that fit a commit."""
    some: list[Stored] = []
    weight = 0
    for each in found:
        if some and weight + _weight(each) > _TOGETHER_BYTES:
            yield some
            some, weight = [], 0
        some.append(each)
        weight += _weight(each)
    if some:
        yield some
