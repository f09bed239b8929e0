# ruff: noqa: N802 - methods are named as their RPCs are
"""SessionService: one method an RPC. Scopes, deadlines and field rules are checked before a method runs."""

from google.protobuf.empty_pb2 import Empty

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import (
    AuthenticateSessionRequest,
    CleanupExpiredSessionsRequest,
    CleanupExpiredSessionsResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    GetSessionRequest,
    ListSessionsRequest,
    ListSessionsResponse,
    RefreshSessionRequest,
    RefreshSessionResponse,
    RevokeSessionRequest,
    RevokeUserSessionsRequest,
    RevokeUserSessionsResponse,
    UpdateSessionRequest,
)
from chassis import context
from chassis.clock import Clock
from chassis.context import caller, tenant
from chassis.errors import not_found
from chassis.store.encoding import microseconds
from services.sessions import session as rules
from services.sessions.authentication import Authenticator
from services.sessions.cleanup import Cleanup
from services.sessions.listing import SessionLists
from services.sessions.records import unpack
from services.sessions.registry import Registry
from services.sessions.revocation import Revocation
from services.sessions.store import SessionStore


class SessionServicer:
    def __init__(
        self,
        store: SessionStore,
        registry: Registry,
        authenticator: Authenticator,
        lists: SessionLists,
        revocation: Revocation,
        cleanup: Cleanup,
        clock: Clock,
    ) -> None:
        self._store = store
        self._registry = registry
        self._authenticator = authenticator
        self._lists = lists
        self._revocation = revocation
        self._cleanup = cleanup
        self._clock = clock

    async def CreateSession(self, request: CreateSessionRequest) -> CreateSessionResponse:
        return await self._registry.create(caller(), request)

    async def AuthenticateSession(self, request: AuthenticateSessionRequest) -> bytes:
        return await self._authenticator.authenticate(request.token, _caller_tenant())

    async def RefreshSession(self, request: RefreshSessionRequest) -> RefreshSessionResponse:
        return await self._authenticator.refresh(request.token, _caller_tenant())

    async def GetSession(self, request: GetSessionRequest) -> bytes:
        data = await self._store.look(request.session_id)
        entry = None if data is None else unpack(request.session_id, data)
        if entry is None or entry.tenant != tenant():
            raise not_found("session", request.session_id)
        if entry.active and microseconds(self._clock.now()) >= entry.end:
            return self._shown(Session.FromString(entry.session)).SerializeToString()
        return entry.session

    async def ListSessions(self, request: ListSessionsRequest) -> ListSessionsResponse:
        return await self._lists.page(tenant(), request)

    async def UpdateSession(self, request: UpdateSessionRequest) -> Session:
        return self._shown(await self._registry.update(tenant(), request.session, request.update_mask))

    async def RevokeSession(self, request: RevokeSessionRequest) -> Empty:
        await self._revocation.one(tenant(), request.session_id, request.reason)
        return Empty()

    async def RevokeUserSessions(self, request: RevokeUserSessionsRequest) -> RevokeUserSessionsResponse:
        count = await self._revocation.all_of(tenant(), request.user_id, request.except_session_id, request.reason)
        return RevokeUserSessionsResponse(revoked_count=count)

    async def CleanupExpiredSessions(self, request: CleanupExpiredSessionsRequest) -> CleanupExpiredSessionsResponse:
        removed = await self._cleanup.some(request.limit, tenant())
        return CleanupExpiredSessionsResponse(removed_count=removed.count, more=removed.more)

    def _shown(self, session: Session) -> Session:
        session.status = rules.status_at(session, self._clock.now())
        return session


def _caller_tenant() -> str:
    """The tenant of a caller token that came along with the session token, empty for none."""
    call = context.current()
    return "" if call is None or call.caller is None else call.caller.tenant
