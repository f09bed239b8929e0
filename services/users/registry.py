"""Registering users, changing what was registered, and removing them with their sessions."""

from collections.abc import Callable
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import CreateUserRequest, DeleteUserRequest
from chassis.api.ids import etag_of, new_id
from chassis.api.validation import compile_validator
from chassis.clock import Clock
from chassis.errors import ApiError, Code, Violation, etag_mismatch, invalid_argument
from chassis.store.landing import Landings
from chassis.store.port import DocumentExists
from chassis.store.requests import RequestLog
from services.users import user as rules
from services.users.records import Stored
from services.users.sessions import Revocations
from services.users.store import ATTEMPTS, UserStore

_METHOD: Final = "bas.users.v2.UserService/CreateUser"


class Registry:
    def __init__(
        self,
        store: UserStore,
        log: RequestLog,
        revocations: Revocations,
        landings: Landings,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._revocations = revocations
        self._landings = landings
        self._log = log
        self._clock = clock
        self._random_bytes = random_bytes
        self._validate = compile_validator(User.DESCRIPTOR)

    async def create(self, tenant: str, request: CreateUserRequest) -> User:
        """Raises USER_ALREADY_EXISTS, USER_EMAIL_TAKEN, REQUEST_ID_REUSED, INVALID_ARGUMENT."""
        user = self._registered(request.user)
        claim = rules.claim(user.email, "user.email")
        answer = []
        if request.request_id:
            answer.append(self._log.write_for(tenant, _METHOD, request.request_id, request, user))
        for _ in range(ATTEMPTS):
            try:
                return await self._store.create(tenant, user, claim, answer)
            except ApiError as taken:
                if taken.code is not Code.ALREADY_EXISTS and not isinstance(taken, DocumentExists):
                    raise
                # Whatever it stumbled over, the log tells a repetition from a stranger.
                first = await self._first_answer(tenant, request)
                if first is not None:
                    return first
                if taken.code is Code.ALREADY_EXISTS:
                    raise
                # An answer that is kept no longer stood in the way.
        raise _contended()

    async def update(self, tenant: str, patch: User, mask: FieldMask, *, allow_missing: bool = False) -> User:
        """Raises USER_NOT_FOUND, ETAG_MISMATCH, USER_EMAIL_TAKEN, INVALID_ARGUMENT for what cannot be changed, or not to
        that."""
        now = self._clock.now()

        def decide(before: Stored) -> Stored | None:
            changed = rules.updated(before.user, patch, mask, now)
            if changed is None:
                return None
            self._check(changed)
            # An address that stays keeps its claim, whichever release made that.
            same = changed.email == before.user.email
            claim = before.claim if same else rules.claim(changed.email, "user.email")
            return Stored(tenant, changed, claim, before.version)

        for _ in range(ATTEMPTS):
            try:
                return (await self._store.change(tenant, patch.user_id, decide, etag=patch.etag)).user
            except ApiError as failure:
                if failure.code is not Code.NOT_FOUND or not allow_missing:
                    raise
            if patch.etag:  # a version of a user that is not there
                raise etag_mismatch("user", patch.user_id)
            user = self._registered(patch)
            self._check(user)
            try:
                return await self._store.create(tenant, user, rules.claim(user.email, "user.email"))
            except ApiError as failure:
                if failure.reason != "USER_ALREADY_EXISTS":
                    raise
        raise _contended()

    async def remove(self, tenant: str, request: DeleteUserRequest) -> None:
        """Seen to its end when the caller leaves: what follows a delete is part of it. Raises USER_NOT_FOUND,
        ETAG_MISMATCH; SESSIONS_NOT_REVOKED where no outbox ends the sessions later."""
        await self._landings.land(self._remove(tenant, request))

    async def _remove(self, tenant: str, request: DeleteUserRequest) -> None:
        missing: ApiError | None = None
        revocation = self._revocations.promised(tenant, request.user_id)
        try:
            await self._store.delete(tenant, request.user_id, revocation, etag=request.etag)
        except ApiError as failure:
            if failure.code is not Code.NOT_FOUND:
                raise
            missing = failure
        # Also for a user that is gone: this may be the repetition of a call that got no further than here.
        await self._revocations.at_once(revocation)
        if missing is not None and not request.allow_missing:
            raise missing

    def _registered(self, given: User) -> User:
        return rules.registered(given.user_id or new_id(self._random_bytes), given, self._clock.now())

    def _check(self, user: User) -> None:
        """The field rules of the whole user: an address that a mask cleared, entries of a map that add up to more than
        the request showed."""
        try:
            self._validate(user)
        except ApiError as refused:
            raise invalid_argument(
                *(Violation(f"user.{each.field}", each.description) for each in refused.violations)
            ) from None

    async def _first_answer(self, tenant: str, request: CreateUserRequest) -> User | None:
        kept = await self._log.find(tenant, _METHOD, request.request_id, request)
        if kept is None:
            return None
        user = User.FromString(kept.response)
        user.etag = etag_of(kept.version)
        return user


def _contended() -> ApiError:
    return ApiError(Code.ABORTED, "CONTENTION", "This user is being made and removed by others: try again.")
