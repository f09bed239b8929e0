"""What happens to the sessions of a user who is removed."""

from typing import Final, Protocol

from bas.sessions.v2 import sessions_service_pb2
from bas.sessions.v2.sessions_service_pb2 import RevokeUserSessionsRequest
from chassis.errors import ApiError, unavailable
from chassis.module import Peer
from chassis.telemetry.metrics import Metrics

_SCOPE: Final = "sessions:write"


class SessionRevoker(Protocol):
    async def revoke(self, tenant: str, user_id: str) -> None:
        """Once this returns, no session of the user is live; nothing happens for a user who has none. Raises
        SESSIONS_NOT_REVOKED (UNAVAILABLE) when that is not known: it can be repeated."""
        ...


class PeerRevoker:
    """Asks the sessions service, as the user's tenant."""

    def __init__(self, sessions: Peer, metrics: Metrics) -> None:
        service = sessions_service_pb2.DESCRIPTOR.services_by_name["SessionService"]
        self._call = sessions.unary(service.methods_by_name["RevokeUserSessions"])
        self._as_tenant = sessions.as_tenant
        outcomes = metrics.counter(
            "bas_users_session_revocations", "Users removed whose sessions were revoked, by outcome.", ("outcome",)
        )
        self._revoked, self._failed = outcomes.labels("ok"), outcomes.labels("failed")

    async def revoke(self, tenant: str, user_id: str) -> None:
        request = RevokeUserSessionsRequest(user_id=user_id, reason="The user was deleted.")
        try:
            await self._call(request.SerializeToString(), metadata=self._as_tenant(tenant, _SCOPE))
        except ApiError as failure:
            self._failed.inc()
            raise unavailable(
                "SESSIONS_NOT_REVOKED",
                "The user is gone, but it is not known whether all its sessions are: repeat the call, which ends them.",
                retry_after=failure.retry_after or 1.0,
            ) from failure
        self._revoked.inc()
