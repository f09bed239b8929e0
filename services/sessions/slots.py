"""The places of a user's sessions, where their number is limited.

A session is made together with one of `most` slot documents, each of which names one session. Two creates that want
the same slot meet at its version, so the limit holds however many replicas create at once; and no document is written
by every create. A slot is free again when its session has ended: nothing needs to be written for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_ACTIVE
from chassis.store.port import Create, Document, Update, Write
from services.sessions import session as rules
from services.sessions.records import Stored, session_key, slot_key, stored
from services.sessions.store import Change, SessionStore


@dataclass(frozen=True, slots=True)
class Policy:
    """At most so many sessions a user (0: any number), and whether the oldest gives way to one more."""

    most: int
    displace: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A slot, the write that takes it, and the end of the session that had it and might still be live."""

    slot: int
    write: Write
    displaced: Change | None = None


class Slots:
    def __init__(self, store: SessionStore, policy: Policy, random: Random) -> None:
        self._store = store
        self.policy = policy
        self._random = random

    async def place(self, tenant: str, user_id: str, session_id: str, now: datetime) -> Place:
        """A place for a new session, to be committed with it. Raises SESSION_LIMIT."""
        most = self.policy.most
        slots = await self._store.read_many([slot_key(tenant, user_id, slot) for slot in range(most)])
        empty = [slot for slot, document in enumerate(slots) if document is None]
        if empty:
            # Any of them: who creates at the same time rarely wants the same.
            slot = self._random.choice(empty)
            return Place(slot, Create(slot_key(tenant, user_id, slot), {"session_id": session_id}))
        taken = [document for document in slots if document is not None]
        holders = await self._holders(tenant, taken)
        slot, displaced = self._vacated(holders, now)
        write = Update(taken[slot].key, {"session_id": session_id}, version=taken[slot].version)
        return Place(slot, write, displaced)

    async def _holders(self, tenant: str, slots: Sequence[Document]) -> list[Stored | None]:
        keys = [session_key(tenant, str(document.fields["session_id"])) for document in slots]
        return [None if found is None else stored(found) for found in await self._store.read_many(keys)]

    def _vacated(self, holders: Sequence[Stored | None], now: datetime) -> tuple[int, Change | None]:
        ended = [
            slot for slot, held in enumerate(holders) if held is None or held.session.status != SESSION_STATUS_ACTIVE
        ]
        if ended:
            return self._random.choice(ended), None
        held = {slot: session for slot, session in enumerate(holders) if session is not None}
        timed_out = [slot for slot, each in held.items() if not rules.live(each.session, now)]
        if timed_out:
            slot = self._random.choice(timed_out)
        elif self.policy.displace:
            slot = min(held, key=lambda slot: (rules.when(held[slot].session.create_time), slot))
        else:
            raise rules.too_many(self.policy.most)
        return slot, Change(held[slot], held[slot].over(rules.DISPLACED, now))
