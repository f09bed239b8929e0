"""What happens to the sessions of a user who is removed: they are revoked, at once where possible, and else later."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol
from weakref import WeakValueDictionary

from bas.sessions.v2 import sessions_service_pb2
from bas.sessions.v2.sessions_service_pb2 import RevokeUserSessionsRequest
from chassis.clock import Clock
from chassis.errors import ApiError, unavailable
from chassis.module import Peer
from chassis.outbox.announcements import Announcements
from chassis.outbox.port import Behind, Effect
from chassis.resilience.deadline import remaining, within
from chassis.telemetry.metrics import Metrics
from services.users.effects import REVOKE_SESSIONS, revocation_key

AT_ONCE: Final = 2.0
"""Seconds for which a removal waits for its revocation where the outbox would see to it, and at most half of what is
left of the call."""

TOGETHER: Final = 16
"""Revocations asked for at once."""

REMEMBERED: Final = 10_000

_SCOPE: Final = "sessions:write"


class SessionRevoker(Protocol):
    async def revoke(self, tenant: str, user_id: str) -> None:
        """Once this returns, no session of the user is live; nothing happens for a user who has none. Raises ApiError
        when that is not known: it can be repeated."""
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
        except ApiError:
            self._failed.inc()
            raise
        self._revoked.inc()


class Revocations:
    """The revocations that removals promise. `promised` is committed with the removal, `at_once` spares the wait for the
    outbox, which calls this as the consumer of its kind: what was done here is not done again."""

    def __init__(
        self, revoker: SessionRevoker, announcements: Announcements, clock: Clock, patience: float = AT_ONCE
    ) -> None:
        self._patience = patience
        self._revoker = revoker
        self._announcements = announcements
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._done: dict[str, None] = {}

    def promised(self, tenant: str, user_id: str) -> Effect:
        return self._announcements.effect(REVOKE_SESSIONS, tenant, revocation_key(user_id), user_id.encode())

    async def at_once(self, effect: Effect) -> None:
        """Revoke now. Where the outbox sees to it else, a failure is nobody's, and it does not take all the time; where
        none does: SESSIONS_NOT_REVOKED (UNAVAILABLE), which a repetition of the removal mends."""
        if self._announcements.keeps(effect):
            left = remaining(self._clock)
            try:
                async with within(self._clock, self._patience if left is None else min(self._patience, left / 2)):
                    await self._once(effect)
            except ApiError:
                self._announcements.wake()
            return
        try:
            await self._once(effect)
        except ApiError as failure:
            raise unavailable(
                "SESSIONS_NOT_REVOKED",
                "The user is gone, but it is not known whether all its sessions are: repeat the call, which ends them.",
                retry_after=failure.retry_after or 1.0,
            ) from failure

    async def __call__(self, effects: Sequence[Effect]) -> list[BaseException | None]:
        by_key: dict[str, list[Effect]] = {}
        for effect in effects:
            by_key.setdefault(effect.key, []).append(effect)
        users = list(by_key.values())
        answers: dict[str, BaseException | None] = {}
        for start in range(0, len(users), TOGETHER):
            some = await asyncio.gather(*map(self._in_order, users[start : start + TOGETHER]))
            for answered in some:
                answers |= answered
            if all(any(answered.values()) for answered in some):
                break  # nobody is there: the others need not wait for it one by one
        return [answers[effect.id] if effect.id in answers else Behind() for effect in effects]

    async def _in_order(self, effects: Sequence[Effect]) -> dict[str, BaseException | None]:
        """Those of one user."""
        answers: dict[str, BaseException | None] = {}
        for effect in effects:
            if any(answers.values()):
                answers[effect.id] = Behind()
                continue
            try:
                await self._once(effect)
            except ApiError as failure:
                answers[effect.id] = failure
            else:
                answers[effect.id] = None
        return answers

    async def _once(self, effect: Effect) -> None:
        turn = self._turns.setdefault(effect.id, asyncio.Lock())
        async with turn:
            if effect.id in self._done:
                return
            await self._revoker.revoke(effect.tenant, effect.payload.decode())
            if len(self._done) >= REMEMBERED:
                del self._done[next(iter(self._done))]
            self._done[effect.id] = None
