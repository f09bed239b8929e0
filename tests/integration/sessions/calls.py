"""The RPCs of the sessions service, as short as a test wants them."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import (
    AuthenticateSessionRequest,
    AuthenticateSessionResponse,
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
    UpdateSessionRequest,
)
from chassis.errors import ApiError, Code
from tests.integration.sessions.conftest import Sessions


async def create(
    sessions: Sessions,
    user_id: str = "ada",
    *,
    idle: float = 0,
    absolute: float = 0,
    request_id: str = "",
    **fields: Any,
) -> CreateSessionResponse:
    session = Session(user_id=user_id, **fields)
    if idle:
        session.idle_ttl.FromTimedelta(timedelta(seconds=idle))
    if absolute:
        session.absolute_ttl.FromTimedelta(timedelta(seconds=absolute))
    return await sessions.api.CreateSession(CreateSessionRequest(session=session, request_id=request_id))


async def authenticate(sessions: Sessions, token: str) -> AuthenticateSessionResponse:
    data = await sessions.api.AuthenticateSession(AuthenticateSessionRequest(token=token))
    return AuthenticateSessionResponse.FromString(data)


async def is_live(sessions: Sessions, token: str) -> bool:
    """Whether the token opens its session; anything but yes and SESSION_INVALID is raised."""
    try:
        await authenticate(sessions, token)
    except ApiError as refusal:
        if refusal.code is Code.UNAUTHENTICATED:
            return False
        raise
    return True


async def refresh(sessions: Sessions, token: str) -> RefreshSessionResponse:
    return await sessions.api.RefreshSession(RefreshSessionRequest(token=token))


async def get(sessions: Sessions, session_id: str) -> Session:
    return Session.FromString(await sessions.api.GetSession(GetSessionRequest(session_id=session_id)))


async def listed(sessions: Sessions, user_id: str = "ada", **fields: Any) -> ListSessionsResponse:
    return await sessions.api.ListSessions(ListSessionsRequest(user_id=user_id, **fields))


async def update(sessions: Sessions, session: Session, *paths: str) -> Session:
    return await sessions.api.UpdateSession(UpdateSessionRequest(session=session, update_mask=FieldMask(paths=paths)))


async def revoke(sessions: Sessions, session_id: str, reason: str = "") -> None:
    await sessions.api.RevokeSession(RevokeSessionRequest(session_id=session_id, reason=reason))


async def revoke_all(sessions: Sessions, user_id: str = "ada", but: str = "") -> int:
    request = RevokeUserSessionsRequest(user_id=user_id, except_session_id=but)
    return (await sessions.api.RevokeUserSessions(request)).revoked_count


async def clean_up(sessions: Sessions, limit: int = 0) -> CleanupExpiredSessionsResponse:
    return await sessions.api.CleanupExpiredSessions(CleanupExpiredSessionsRequest(limit=limit))


def refused(reason: str) -> Any:
    """Expect an ApiError of that reason."""
    return pytest.raises(ApiError, check=lambda failure: failure.reason == reason)
