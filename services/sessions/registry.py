"""Making sessions, once for each request however often it is sent, and changing what may be changed of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import CreateSessionRequest, CreateSessionResponse
from chassis.api.ids import etag_of, new_id
from chassis.api.validation import compile_validator
from chassis.auth.refusals import Refused
from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import ApiError, Violation, invalid_argument, invalid_field, permission_denied
from chassis.store.port import Create, DocumentExists, PreconditionFailed, VersionConflict, Write
from chassis.store.requests import COLLECTION as REQUESTS
from chassis.store.requests import RequestLog
from services.sessions import session as rules
from services.sessions.records import Stored, fields_of, lookup_key, lookup_of, session_key
from services.sessions.rotation import Secret
from services.sessions.slots import Place, Slots
from services.sessions.store import SessionStore, Times
from services.sessions.timeouts import Limits
from services.sessions.tokens import SessionTokens, digest_of
from services.sessions.turns import Turns

_METHOD: Final = "bas.sessions.v2.SessionService/CreateSession"
_FIRST: Final = 1
ATTEMPTS: Final = 30
"""How often a place among a user's sessions is looked for when others were faster: other replicas, as the creates of
one replica take turns."""


class Registry:
    def __init__(
        self,
        store: SessionStore,
        tokens: SessionTokens,
        slots: Slots,
        log: RequestLog,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        limits: Limits,
        times: Times,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._slots = slots
        self._turns = Turns()
        self._log = log
        self._clock = clock
        self._random_bytes = random_bytes
        self._limits = limits
        self._times = times
        self._validate = compile_validator(Session.DESCRIPTOR)

    async def create(self, caller: Caller, request: CreateSessionRequest) -> CreateSessionResponse:
        """Raises SCOPE_MISSING, SESSION_LIMIT, REQUEST_ID_REUSED, INVALID_ARGUMENT for time-outs beyond the maxima."""
        given = request.session
        if given.session_id:
            # An id leads to its session from a token alone, whosever it is: it must be nobody's choice.
            raise invalid_field("session.session_id", "is made by the service: leave it out")
        for scope in given.scopes:
            if not caller.may(scope):
                raise Refused(permission_denied(scope), "SCOPE_MISSING", caller)
        if self._slots.policy.most:
            async with self._turns.of(f"{caller.tenant}/{given.user_id}"):
                return await self._create(caller.tenant, request)
        return await self._create(caller.tenant, request)

    async def update(self, tenant: str, patch: Session, mask: FieldMask) -> Session:
        """Raises SESSION_NOT_FOUND, ETAG_MISMATCH, INVALID_ARGUMENT for what cannot be changed, or not to that."""
        now = self._clock.now()

        def decide(before: Stored) -> Stored | None:
            changed = rules.updated(before.session, patch, mask, now)
            if changed is None:
                return None
            try:
                # Entries that a mask adds to a map add up to more than the request showed.
                self._validate(changed)
            except ApiError as refused:
                violations = (Violation(f"session.{each.field}", each.description) for each in refused.violations)
                raise invalid_argument(*violations) from None
            return replace(before, session=changed)

        return (await self._store.change(tenant, patch.session_id, decide, etag=patch.etag)).session

    async def _create(self, tenant: str, request: CreateSessionRequest) -> CreateSessionResponse:
        lost: ApiError | None = None
        for _ in range(ATTEMPTS):
            answered = await self._first_answer(tenant, request)
            if answered is not None:
                return answered
            try:
                return await self._commit(tenant, request)
            except PreconditionFailed as taken:
                # A twin of this call was first, or somebody else at the place among the user's sessions.
                if (
                    isinstance(taken, DocumentExists)
                    and taken.key.collection != REQUESTS
                    and not self._slots.policy.most
                ):
                    raise
                lost = taken
        raise lost or VersionConflict(session_key(tenant, ""))

    async def _commit(self, tenant: str, request: CreateSessionRequest) -> CreateSessionResponse:
        now = self._clock.now()
        session = rules.started(new_id(self._random_bytes), request.session, self._limits, now)
        session_id = session.session_id
        token = self._tokens.issue(session_id, _FIRST)
        place: Place | None = None
        if self._slots.policy.most:
            place = await self._slots.place(tenant, session.user_id, session_id, now)
        held = Stored(tenant, session, "", Secret(_FIRST, digest_of(token)), place.slot if place else None)
        writes: list[Write] = [
            Create(held.key, fields_of(held)),
            Create(lookup_key(session_id), lookup_of(held, self._times.revoked_kept)),
        ]
        if place is not None:
            writes.append(place.write)
        if request.request_id:
            # Without the token, which is made again from the session's id.
            response = CreateSessionResponse(session=session)
            writes.append(self._log.write_for(tenant, _METHOD, request.request_id, request, response))
        version = await self._store.create(held, writes, place.displaced if place else None)
        session.etag = etag_of(version)
        return CreateSessionResponse(session=session, token=token)

    async def _first_answer(self, tenant: str, request: CreateSessionRequest) -> CreateSessionResponse | None:
        kept = await self._log.find(tenant, _METHOD, request.request_id, request)
        if kept is None:
            return None
        response = CreateSessionResponse.FromString(kept.response)
        response.session.etag = etag_of(kept.version)
        response.token = self._tokens.issue(response.session.session_id, _FIRST)
        return response
