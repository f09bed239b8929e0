"""The sessions of all tenants: documents, what is cached of them, and how a change becomes known everywhere.

Every change of an existing session goes through `commit`: fence, commit, lift, answer (docs/cache.md), with the events of
the change in the commit (`effects.py`). Cached under strict read-through: `sess:{<session id>}`, whose value says the tenant, so that a token alone is enough to find it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from prometheus_client import Counter

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_ACTIVE
from chassis.api.ids import etag_matches, etag_of
from chassis.cache.port import CacheUnavailable, Loaded
from chassis.cache.strict import Fence, StrictReadThrough
from chassis.clock import Clock
from chassis.errors import ApiError, etag_mismatch, not_found, unavailable
from chassis.outbox.announcements import Announcements, Happening
from chassis.store.port import (
    Committed,
    Document,
    DocumentMissing,
    DocumentStore,
    DocumentTooLarge,
    Key,
    PreconditionFailed,
    Put,
    StoreFull,
    Update,
    VersionConflict,
    Write,
)
from services.sessions import effects
from services.sessions import session as rules
from services.sessions.records import (
    REGISTRY,
    Stored,
    decoy,
    fields_of,
    lookup_key,
    lookup_of,
    pack,
    session_key,
    stored,
)

ATTEMPTS: Final = 10
"""How often a change is decided anew when others were faster."""

TELLINGS: Final = 3
"""How often the cache is told before it is taken to be away: an operation may be late because this process was busy."""

UNTOLD: Final = 10_000
"""Fences kept to be lifted later. Their holds end by themselves; what is dropped is only the repetition."""

Decide: TypeAlias = Callable[[Stored], Stored | None]
"""From a session as it is to what it shall be; None: leave it. May raise ApiError. Called again after a conflict."""


@dataclass(frozen=True, slots=True)
class Times:
    """`hold` is how long a fence stands by itself: longer than any commit takes, first look to last retry. `dead` is
    for how long a session that cannot be used any more is cached; `longest` bounds how long anything is, and how far
    clocks are apart."""

    step: timedelta
    revoked_kept: timedelta
    hold: float
    dead: float
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Change:
    """A session as it was read, and as it shall be; whether that is because one of its tokens was stolen."""

    before: Stored
    after: Stored
    stolen: bool = False


class SessionStore:
    def __init__(
        self,
        documents: DocumentStore,
        cached: StrictReadThrough,
        announcements: Announcements,
        clock: Clock,
        times: Times,
        unconfirmed: Counter,
    ) -> None:
        self.documents = documents
        self._cached = cached
        self._announcements = announcements
        self._clock = clock
        self._times = times
        self._unconfirmed = unconfirmed
        self._untold: dict[Fence, None] = {}
        # What is nobody's takes as long to find out as what is somebody's: time must not tell them apart.
        self._decoy = decoy()

    async def look(self, session_id: str) -> bytes | None:
        """The cache's entry of a session (for `records.unpack`), whosever it is; None when there is none."""

        async def load() -> Loaded | None:
            found = await self.find(session_id)
            if found is None:
                pack(stored(self._decoy), self._times.step)
                return None
            now = self._clock.now()
            left = (rules.when(found.session.expire_time) - now).total_seconds()
            life = left if rules.live(found.session, now) else self._times.dead
            return Loaded(pack(found, self._times.step), found.version, max_ttl=life)

        return await self._cached.get(session_id, load)

    async def find(self, session_id: str) -> Stored | None:
        """The session as the store has it now, whosever it is."""
        lookup = await self.documents.get(lookup_key(session_id))
        # As many reads for nobody's id as for somebody's.
        return await self.read(REGISTRY if lookup is None else str(lookup.fields["tenant"]), session_id)

    async def read(self, tenant: str, session_id: str) -> Stored | None:
        """The tenant's session as the store has it now."""
        document = await self.documents.get(session_key(tenant, session_id))
        return None if document is None else stored(document)

    async def read_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return await self.documents.get_many(keys) if keys else []

    async def create(self, held: Stored, more: Sequence[Write], displaced: Change | None = None) -> str:
        """A session in one commit with `more`, which begins with its documents, and with the end of another whose place
        it takes; the version. Raises what the store raises; where one is displaced, as `commit`."""
        created = effects.created(held.tenant, held.session)
        if displaced is None:
            return (await self._committed([*more, *self._announcements.writes([created])])).versions[0]
        happenings = [*_told(displaced), created]
        ended = displaced.after
        writes = [*more, *self._writes(ended)]
        return (await self.fenced([ended.session.session_id], writes, happenings))[0]

    async def change(
        self, tenant: str, session_id: str, decide: Decide, *, etag: str = "", stolen: bool = False
    ) -> Stored:
        """Read, decide, commit at the version that was read; all over again when somebody was faster.

        What is answered is so for every reader that begins afterwards. Raises SESSION_NOT_FOUND, ETAG_MISMATCH when
        `etag` is given and not the current one, VersionConflict when others were faster every time, and what `commit`
        raises.
        """
        lost: PreconditionFailed | None = None
        for _ in range(ATTEMPTS):
            before = await self.read(tenant, session_id)
            if before is None:
                raise not_found("session", session_id)
            if not etag_matches(etag, before.version):
                raise etag_mismatch("session", session_id)
            after = decide(before)
            if after is None:
                # Whoever made it so may not have been able to tell the cache.
                await self.confirm(session_id)
                return before
            try:
                (changed,) = await self.commit([Change(before, after, stolen)])
            except (VersionConflict, DocumentMissing) as conflict:
                lost = conflict
            else:
                return changed
        raise lost or VersionConflict(session_key(tenant, session_id))

    async def commit(self, changes: Sequence[Change]) -> list[Stored]:
        """Sessions that were read at their versions, in one commit, made known before this returns.

        Raises CACHE_UNAVAILABLE, and nothing was changed; VersionConflict, DocumentMissing and the like of the store;
        UNAVAILABLE with CHANGE_UNCONFIRMED when it was committed and the cache could not be told.
        """
        changed = [change.after for change in changes]
        writes = [write for each in changed for write in self._writes(each)]
        told = [happening for change in changes for happening in _told(change)]
        versions = await self.fenced([each.session.session_id for each in changed], writes, told)
        by_key = {write.key: version for write, version in zip(writes, versions, strict=False)}
        return [_at(each, by_key[each.key]) for each in changed]

    async def fenced(
        self, session_ids: Sequence[str], writes: Sequence[Write], happenings: Iterable[Happening]
    ) -> tuple[str, ...]:
        """Commit `writes`, which end or change these sessions, and what is told of it, behind their fences; see `commit`."""
        told = self._announcements.writes(happenings)
        fence = await self._fence(session_ids)
        try:
            committed = await self._committed([*writes, *told], told=bool(told))
        except (PreconditionFailed, StoreFull, DocumentTooLarge):
            await self._lift(fence)
            raise
        # Any other failure leaves it open whether it was applied: then readers ask the store until the hold ends.
        if not await self._lift(fence):
            self._unconfirmed.inc()
            raise _unconfirmed()
        return committed.versions

    async def touch(self, tenant: str, session_id: str) -> bool:
        """Write that the session is used, unless that is written already; whether it was.

        No fence: it makes nothing less alive, and a reader of what was cached before asks for no more than another
        look. Raises what the store raises; VersionConflict: somebody else wrote it.
        """
        before = await self.read(tenant, session_id)
        now = self._clock.now()
        if before is None or not rules.live(before.session, now):
            return False
        due = now >= rules.touch_time(before.session, self._times.step)
        if due:
            after = before.copy()
            rules.use(after.session, self._times.step, now)
            await self.documents.commit([Update(after.key, fields_of(after), version=after.version)])
        # While the cache is away: what is cached ends sooner than it might, and is then read again.
        with suppress(CacheUnavailable):
            await self._cached.forget(session_id)
        return due

    async def confirm(self, *session_ids: str) -> None:
        """Make sure that nothing older than what the store has now is cached. Raises CacheUnavailable."""
        for left in reversed(range(TELLINGS)):
            try:
                await self._cached.forget(*session_ids)
            except CacheUnavailable:
                if not left:
                    raise
            else:
                return

    async def tell(self) -> int:
        """Lift what could not be lifted when it should have been; how many are left."""
        for fence in list(self._untold):
            if not await self._cached.lift(fence):
                break
            self._untold.pop(fence, None)
        return len(self._untold)

    async def close(self) -> None:
        await self._cached.close()

    async def _committed(self, writes: Sequence[Write], *, told: bool = True) -> Committed:
        try:
            return await self.documents.commit(writes)
        finally:
            # Also when it is not known whether it was applied.
            if told:
                self._announcements.wake()

    def _writes(self, changed: Stored) -> list[Write]:
        writes: list[Write] = [Update(changed.key, fields_of(changed), version=changed.version)]
        if changed.session.status != SESSION_STATUS_ACTIVE:
            lookup = lookup_of(changed, self._times.revoked_kept)
            writes.append(Put(lookup_key(changed.session.session_id), lookup))
        return writes

    async def _fence(self, session_ids: Sequence[str]) -> Fence:
        for _ in range(TELLINGS - 1):
            try:
                return await self._cached.fence(*session_ids, hold=self._times.hold)
            except CacheUnavailable:
                continue
        return await self._cached.fence(*session_ids, hold=self._times.hold)

    async def _lift(self, fence: Fence) -> bool:
        for _ in range(TELLINGS):
            if await self._cached.lift(fence):
                return True
        while len(self._untold) >= UNTOLD:
            self._untold.pop(next(iter(self._untold)))
        self._untold[fence] = None
        return False


def _told(change: Change) -> list[Happening]:
    before, after = change.before, change.after
    exchanged = before.secret.generation != after.secret.generation
    return effects.changed(after.tenant, before.session, after.session, exchanged=exchanged, stolen=change.stolen)


def _at(changed: Stored, version: str) -> Stored:
    changed.session.etag = etag_of(version)
    return replace(changed, version=version)


def _unconfirmed() -> ApiError:
    return unavailable(
        "CHANGE_UNCONFIRMED",
        "The change was made, and the cache could not be told: repeat the call to be sure that it is known everywhere.",
    )
