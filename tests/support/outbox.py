"""An outbox whose records are plain documents and that nobody empties: what was committed is what is there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from bas.events.v2.events_pb2 import CloudEvent
from chassis.errors import ApiError
from chassis.outbox.port import EVENT, Effect
from chassis.store.port import Committed, Create, DocumentStore, Key, StoreTimeout, Write

_AT_ONCE: Final = 500
_TENANT: Final = "$outbox"


@dataclass(frozen=True, slots=True)
class Told:
    """An event that was committed."""

    id: str
    tenant: str
    key: str
    source: str
    type: str
    subject: str
    data: dict[str, Any]


class RecordingOutbox:
    """The Outbox of tests. It keeps the effects of `kinds`, or of all; `handed` are those that it made records of,
    whether or not these were committed."""

    def __init__(self, kinds: Sequence[str] | None = None) -> None:
        self.handed: list[Effect] = []
        self.wakes = 0
        self._kinds = kinds

    def records(self, effects: Iterable[Effect]) -> list[Write]:
        kept = [effect for effect in effects if self._kinds is None or effect.kind in self._kinds]
        self.handed += kept
        return [Create(_key(effect), {"kind": effect.kind, "payload": effect.payload}) for effect in kept]

    def wake(self) -> None:
        self.wakes += 1

    async def committed(self, store: DocumentStore) -> list[Effect]:
        """The effects whose records are in the store, in the order in which they were made."""
        handed = list({effect.id: effect for effect in self.handed}.values())
        found: list[Effect] = []
        for start in range(0, len(handed), _AT_ONCE):
            some = handed[start : start + _AT_ONCE]
            documents = await store.get_many([_key(effect) for effect in some])
            found += [effect for effect, document in zip(some, documents, strict=True) if document is not None]
        return found

    async def told(self, store: DocumentStore) -> list[Told]:
        """The events among them."""
        return [told_by(effect) for effect in await self.committed(store) if effect.kind == EVENT]

    async def types(self, store: DocumentStore) -> list[str]:
        return [told.type for told in await self.told(store)]


def told_by(effect: Effect) -> Told:
    event = CloudEvent.FromString(effect.payload)
    assert event.id == effect.id
    data = MessageToDict(event.data)
    return Told(event.id, effect.tenant, effect.key, event.source, event.type, event.subject, data)


class LosingStore:
    """A store in front of another that applies the next `lost` commits, and then says that it did not answer in time; or
    fails the next commit with `failure`, unapplied. `torn` is a seeded bug: records are committed by themselves, first."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.get, self.get_many, self.query, self.count = inner.get, inner.get_many, inner.query, inner.count
        self.close = inner.close
        self.lost = 0
        self.failure: ApiError | None = None
        self.torn = False

    async def commit(self, writes: Sequence[Write]) -> Committed:
        failure, self.failure = self.failure, None
        records = [write for write in writes if write.key.tenant == _TENANT]
        if self.torn and records:
            await self._inner.commit(records)
            writes = [write for write in writes if write.key.tenant != _TENANT]
        if failure is not None:
            raise failure
        committed = await self._inner.commit(writes)
        if self.lost:
            self.lost -= 1
            raise StoreTimeout
        return committed


def _key(effect: Effect) -> Key:
    return Key(_TENANT, "told", effect.id)
