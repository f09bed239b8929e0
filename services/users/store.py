"""The users of all tenants: documents, what is cached of them, and what a change invalidates.

A user and the claim on its e-mail address are written in one commit, always, with what is told of it (`effects.py`):
whoever creates the claim has the address.
Cached: `user:{<tenant>/<user>}` (the serialized User, etag included) and `user:email:{<tenant>/<claim>}` (the id of who
holds the claim, or that nobody does).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from bas.users.v2.users_pb2 import User
from chassis.api.ids import etag_matches, etag_of
from chassis.cache.port import Loaded, ReadThrough
from chassis.cache.together import together
from chassis.errors import ApiError, Code, already_exists, etag_mismatch, not_found
from chassis.outbox.announcements import Announcements
from chassis.outbox.port import Effect
from chassis.store.landing import Landings
from chassis.store.port import (
    Committed,
    Create,
    Delete,
    Document,
    DocumentExists,
    DocumentMissing,
    DocumentStore,
    PreconditionFailed,
    Update,
    VersionConflict,
    Write,
)
from services.users import effects
from services.users import user as rules
from services.users.email import NoAddress, claim_of
from services.users.filters import COLLECTION
from services.users.records import CLAIMS, Stored, claim_fields, claim_key, holder, stored, user_fields, user_key

ATTEMPTS: Final = 10
"""How often a change without etag is decided anew, and a look-up repeated, when others were faster."""

Decide: TypeAlias = Callable[[Stored], Stored | None]
"""From a user as it is to what it shall be; None: leave it. May raise ApiError. Called again after a conflict."""


class UserStore:
    def __init__(
        self,
        documents: DocumentStore,
        cached: ReadThrough,
        emails: ReadThrough,
        landings: Landings,
        announcements: Announcements,
    ) -> None:
        self._documents = documents
        self._landings = landings
        self._announcements = announcements
        self._cached = cached
        self._emails = emails

    async def get(self, tenant: str, user_id: str) -> bytes:
        """The serialized user, up to the profile TTL old where an invalidation could not be delivered. Raises
        USER_NOT_FOUND."""
        data = await self._cached.get(f"{tenant}/{user_id}", lambda: self._load(tenant, user_id))
        if data is None:
            raise not_found("user", user_id)
        return data

    async def get_many(self, tenant: str, user_ids: Sequence[str]) -> dict[str, bytes | None]:
        """The same for many, None where there is none: one round trip to the cache, at most one to the store."""
        prefix = f"{tenant}/"

        async def load(keys: Sequence[str]) -> Mapping[str, Loaded | None]:
            wanted = [user_key(tenant, key.removeprefix(prefix)) for key in keys]
            return dict(zip(keys, map(_loaded, await self._documents.get_many(wanted)), strict=True))

        found = await self._cached.get_many([prefix + user_id for user_id in user_ids], load)
        return {key.removeprefix(prefix): data for key, data in found.items()}

    async def lookup(self, tenant: str, claim: str) -> bytes:
        """The serialized user who holds the claim, as old as `get`. Raises USER_NOT_FOUND."""

        async def load() -> Loaded | None:
            document = await self._documents.get(claim_key(tenant, claim))
            return None if document is None else Loaded(holder(document).encode(), document.version)

        user_id = await self._emails.get(f"{tenant}/{claim}", load)
        if user_id is None:
            raise rules.nobody()
        data = await self._cached.get(f"{tenant}/{user_id.decode()}", lambda: self._load(tenant, user_id.decode()))
        if data is not None and _has(User.FromString(data), claim):
            return data
        # The claim moved between the two reads, or the cache was not told of a move: the store knows.
        return await self._found(tenant, claim)

    async def read(self, tenant: str, user_id: str) -> Stored | None:
        """The user as the store has it now."""
        document = await self._documents.get(user_key(tenant, user_id))
        return None if document is None else stored(document)

    async def create(self, tenant: str, user: User, claim: str, more: Sequence[Write] = ()) -> User:
        """The user, its claim and `more` in one commit; the user as stored. Raises USER_ALREADY_EXISTS,
        USER_EMAIL_TAKEN, and DocumentExists for one of `more`."""
        writes = (
            Create(user_key(tenant, user.user_id), user_fields(user, claim)),
            Create(claim_key(tenant, claim), claim_fields(user.user_id)),
            *more,
        )
        try:
            told = self._announcements.writes([effects.created(tenant, user)])
            committed = await self._written(tenant, user.user_id, {claim}, writes, told)
        except DocumentExists as exists:
            if exists.key.collection == COLLECTION:
                raise already_exists("user", user.user_id) from None
            if exists.key.collection == CLAIMS:
                raise rules.email_taken() from None
            raise
        return _versioned(user, committed.versions[0])

    async def change(self, tenant: str, user_id: str, decide: Decide, *, etag: str = "") -> Stored:
        """Read, decide, commit at the version that was read; all over again when somebody was faster.

        Raises USER_NOT_FOUND, ETAG_MISMATCH when `etag` is given and not the current one, USER_EMAIL_TAKEN,
        VersionConflict when others were faster every time.
        """
        lost: PreconditionFailed | None = None
        for _ in range(ATTEMPTS):
            before = await self._at(tenant, user_id, etag)
            after = decide(before)
            if after is None:
                return before
            try:
                return await self._commit(before, after)
            except DocumentExists:
                raise rules.email_taken() from None
            except (VersionConflict, DocumentMissing) as conflict:
                lost = conflict
        raise lost or VersionConflict(user_key(tenant, user_id))

    async def delete(self, tenant: str, user_id: str, owed: Effect, *, etag: str = "") -> None:
        """The user and its claim, in one commit with what its removal owes. Raises USER_NOT_FOUND, ETAG_MISMATCH,
        VersionConflict."""
        lost: PreconditionFailed | None = None
        for _ in range(ATTEMPTS):
            before = await self._at(tenant, user_id, etag)
            writes = (
                Delete(user_key(tenant, user_id), version=before.version),
                Delete(claim_key(tenant, before.claim)),
            )
            told = self._announcements.writes([effects.deleted(tenant, user_id)], owed)
            try:
                await self._written(tenant, user_id, {before.claim}, writes, told)
            except (VersionConflict, DocumentMissing) as conflict:
                lost = conflict
            else:
                return
        raise lost or VersionConflict(user_key(tenant, user_id))

    async def _load(self, tenant: str, user_id: str) -> Loaded | None:
        return _loaded(await self._documents.get(user_key(tenant, user_id)))

    async def _at(self, tenant: str, user_id: str, etag: str) -> Stored:
        found = await self.read(tenant, user_id)
        if found is None:
            raise not_found("user", user_id)
        if not etag_matches(etag, found.version):
            raise etag_mismatch("user", user_id)
        return found

    async def _found(self, tenant: str, claim: str) -> bytes:
        """Who holds the claim, by the store alone. Two reads: a claim that moves between them is looked up again."""
        for _ in range(ATTEMPTS):
            document = await self._documents.get(claim_key(tenant, claim))
            if document is None:
                raise rules.nobody()
            found = await self.read(tenant, holder(document))
            if found is not None and found.claim == claim:
                return found.user.SerializeToString()
        raise ApiError(Code.ABORTED, "CONTENTION", "This e-mail address is changing hands: try again.")

    async def _commit(self, before: Stored, after: Stored) -> Stored:
        """The one place where an existing user changes. Its own write comes first: a conflict with somebody who was
        faster is told from an address that is taken."""
        tenant, user_id = after.tenant, after.user.user_id
        writes: list[Write] = [
            Update(user_key(tenant, user_id), user_fields(after.user, after.claim), version=before.version)
        ]
        if after.claim != before.claim:
            writes.append(Delete(claim_key(tenant, before.claim)))
            writes.append(Create(claim_key(tenant, after.claim), claim_fields(user_id)))
        claims = {before.claim, after.claim} if after.claim != before.claim else set()
        told = self._announcements.writes(effects.updated(tenant, before.user, after.user))
        committed = await self._written(tenant, user_id, claims, writes, told)
        version = committed.versions[0]
        return Stored(tenant, _versioned(after.user, version), after.claim, version)

    async def _written(
        self, tenant: str, user_id: str, claims: Iterable[str], writes: Sequence[Write], told: Sequence[Write]
    ) -> Committed:
        """Commit, then deliver and invalidate: also when the caller has left, or it is not known whether the commit was
        applied."""
        landed = partial(self._landed, tenant, user_id, claims, told=bool(told))
        return await self._landings.commit(self._documents, [*writes, *told], landed)

    async def _landed(self, tenant: str, user_id: str, claims: Iterable[str], *, told: bool) -> None:
        if told:
            self._announcements.wake()
        # Together: they share a round trip, and the caller waits for it.
        await together(
            [
                self._cached.invalidate(f"{tenant}/{user_id}"),
                self._emails.invalidate(*(f"{tenant}/{claim}" for claim in claims)),
            ]
        )


def _loaded(document: Document | None) -> Loaded | None:
    return None if document is None else Loaded(stored(document).user.SerializeToString(), document.version)


def _has(user: User, claim: str) -> bool:
    try:
        return claim_of(user.email) == claim
    except NoAddress:  # stored by a release that took it for one
        return False


def _versioned(user: User, version: str) -> User:
    user.etag = etag_of(version)
    return user
