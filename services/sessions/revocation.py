"""Ending sessions: one, or all of a user's."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from bas.sessions.v2.sessions_pb2 import (
    SESSION_STATUS_ACTIVE,
    SESSION_STATUS_REVOKED,
    SessionStatus,
)
from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.store.port import Filter, Op, PreconditionFailed, Query, Value
from services.sessions.filters import COLLECTION, ENDED, LAST_ENDED_FIRST, NEWEST_FIRST
from services.sessions.records import Stored, stored
from services.sessions.store import Change, SessionStore

TOGETHER: Final = 50
"""Sessions ended by one commit, their fences set in one round trip."""


class Revocation:
    def __init__(self, store: SessionStore, clock: Clock, longest: timedelta) -> None:
        """`longest`: for how long what was cached may be met, clocks' differences included."""
        self._store = store
        self._clock = clock
        self._longest = longest

    async def one(self, tenant: str, session_id: str, reason: str) -> bool:
        """Whether this call ended it. What has ended stays as it is. Raises SESSION_NOT_FOUND, and what a change of a
        session raises."""
        ended = False

        def decide(before: Stored) -> Stored | None:
            nonlocal ended
            ended = False
            if before.session.status != SESSION_STATUS_ACTIVE:
                return None
            after = before.over(reason, self._clock.now())
            ended = after.session.status == SESSION_STATUS_REVOKED
            return after

        await self._store.change(tenant, session_id, decide)
        return ended

    async def all_of(self, tenant: str, user_id: str, but: str, reason: str) -> int:
        """How many this call ended, of those that there were when it began. What it ended before it failed stays
        ended: a repetition does the rest."""
        began = self._clock.now()
        count = await self._end_active(tenant, user_id, but, reason)
        await self._confirm_ended(tenant, user_id, began)
        return count

    async def _end_active(self, tenant: str, user_id: str, but: str, reason: str) -> int:
        count = 0
        after: tuple[Value, ...] | None = None
        filters = (
            Filter("user_id", Op.EQ, user_id),
            Filter("status", Op.EQ, SessionStatus.Name(SESSION_STATUS_ACTIVE)),
        )
        while True:
            page = await self._store.documents.query(
                Query(tenant, COLLECTION, filters, NEWEST_FIRST, after, limit=TOGETHER)
            )
            count += await self._end([stored(document) for document in page if document.key.id != but], reason)
            if len(page) < TOGETHER:
                return count
            after = (page[-1].fields["create_time"], page[-1].key.id)

    async def _confirm_ended(self, tenant: str, user_id: str, now: datetime) -> None:
        """What ended lately, by whom ever: a call that failed between its commit and the cache may have left some of
        them cached, and this one finds them over and must not answer before they are so for everybody."""
        after: tuple[Value, ...] | None = None
        filters = (Filter("user_id", Op.EQ, user_id), Filter(ENDED, Op.GE, now - self._longest))
        while True:
            page = await self._store.documents.query(
                Query(tenant, COLLECTION, filters, LAST_ENDED_FIRST, after, limit=TOGETHER)
            )
            if page:
                await self._store.confirm(*(document.key.id for document in page))
            if len(page) < TOGETHER:
                return
            after = (page[-1].fields[ENDED], page[-1].key.id)

    async def _end(self, sessions: Sequence[Stored], reason: str) -> int:
        if not sessions:
            return 0
        try:
            ended = await self._store.commit([Change(each, each.over(reason, self._clock.now())) for each in sessions])
        except PreconditionFailed:
            # One of them has changed meanwhile: each by itself, then.
            return sum([await self._each(each, reason) for each in sessions])
        return sum(each.session.status == SESSION_STATUS_REVOKED for each in ended)

    async def _each(self, held: Stored, reason: str) -> bool:
        try:
            return await self.one(held.tenant, held.session.session_id, reason)
        except ApiError as failure:
            if failure.code is Code.NOT_FOUND:
                return False  # cleaned up meanwhile
            raise
