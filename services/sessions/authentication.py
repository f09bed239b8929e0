"""Whose a token is, and exchanging it for its successor.

All refusals are one answer on one way: a look into the cache, or the store, for whatever id the token claims.
"""

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_ACTIVE, Session
from bas.sessions.v2.sessions_service_pb2 import RefreshSessionResponse
from chassis import context
from chassis.auth.refusals import Refused
from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import ApiError, Code
from chassis.store.encoding import microseconds
from chassis.telemetry.metrics import Metrics
from services.sessions import rotation
from services.sessions import session as rules
from services.sessions.records import Entry, Stored, answer, unpack
from services.sessions.rotation import Secret, Standing
from services.sessions.store import SessionStore
from services.sessions.timeouts import Limits
from services.sessions.tokens import Presented, SessionTokens, digest_of, present
from services.sessions.touches import Touches


class Authenticator:
    def __init__(
        self,
        store: SessionStore,
        tokens: SessionTokens,
        touches: Touches,
        clock: Clock,
        limits: Limits,
        grace: float,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._touches = touches
        self._now = clock.now
        self._step = limits.step
        self._grace = round(grace * 1_000_000)
        thefts = metrics.counter(
            "bas_sessions_thefts", "Uses of a token after its grace, by what became of the session.", ("outcome",)
        )
        self._revoked, self._left = thefts.labels("revoked"), thefts.labels("failed")

    async def authenticate(self, text: str, tenant: str) -> bytes:
        """A serialized AuthenticateSessionResponse. `tenant` is the caller's, empty for none. Raises SESSION_INVALID."""
        presented = present(text)
        data = await self._store.look(presented.session_id)
        if data is None:
            raise rules.invalid()
        entry = unpack(presented.session_id, data)
        now = microseconds(self._now())
        standing = self._judge(presented, entry.secret, now)
        await self._admit(presented, entry, standing, now, tenant)
        if now >= entry.touch_at:
            self._touches.begin(entry.tenant, presented.session_id)
        return answer(entry)

    async def refresh(self, text: str, tenant: str) -> RefreshSessionResponse:
        """Raises SESSION_INVALID, REFRESHED_TOO_OFTEN, and what a change of a session raises (`SessionStore.commit`)."""
        presented = present(text)
        data = await self._store.look(presented.session_id)
        if data is None:
            raise rules.invalid()
        entry = unpack(presented.session_id, data)
        now = microseconds(self._now())
        await self._admit(presented, entry, self._judge(presented, entry.secret, now), now, tenant)
        held = await self._exchange(presented, entry.tenant)
        generation = self._tokens.generation(presented)
        if generation is None:  # a key that was replaced signs no successor that an earlier answer named
            raise rules.invalid()
        successor = self._tokens.issue(presented.session_id, generation + 1)
        if generation + 1 == held.secret.generation and digest_of(successor) != held.secret.digest:
            raise rules.invalid()
        return RefreshSessionResponse(session=held.session, token=successor)

    async def _exchange(self, presented: Presented, tenant: str) -> Stored:
        """The session once the token has its successor, whoever exchanged it."""

        def decide(before: Stored) -> Stored | None:
            now = self._now()
            moment = microseconds(now)
            standing = self._judge(presented, before.secret, moment)
            if not rules.live(before.session, now) or standing in (Standing.UNKNOWN, Standing.STOLEN):
                raise rules.invalid()
            if standing is Standing.IN_GRACE:
                return None
            if rotation.full(before.secret, moment, self._grace):
                raise _too_often()
            generation = before.secret.generation
            digest = digest_of(self._tokens.issue(presented.session_id, generation + 1))
            after = before.copy(rotation.exchanged(before.secret, digest, moment))
            rules.use(after.session, self._step, now)
            return after

        try:
            return await self._store.change(tenant, presented.session_id, decide)
        except ApiError as failure:
            if failure.code is Code.NOT_FOUND:
                raise rules.invalid() from None
            raise

    async def _admit(self, presented: Presented, entry: Entry, standing: Standing, now: int, tenant: str) -> None:
        """Raises SESSION_INVALID unless the token opens a session that is live, and the caller's."""
        if not entry.active or now >= entry.end:
            if standing is Standing.UNKNOWN:
                raise rules.invalid()
            raise _refused(rules.ENDED, presented, entry)
        if standing is Standing.STOLEN:
            await self._shut(presented, entry.tenant)
            raise _refused(rules.REUSED, presented, entry)
        if standing is Standing.UNKNOWN:
            raise rules.invalid()
        if tenant and tenant != entry.tenant:
            raise _refused(rules.FOREIGN, presented, entry, *_calling())

    def _judge(self, presented: Presented, secret: Secret, now: int) -> Standing:
        if rotation.same(presented.digest, secret.digest):
            return Standing.CURRENT
        generation = self._tokens.generation(presented)
        if generation is None or generation == secret.generation:
            return Standing.UNKNOWN
        return rotation.standing(generation, secret, now, self._grace)

    async def _shut(self, presented: Presented, tenant: str) -> None:
        """A token came back after its grace: two have it, and nobody can tell who is the right one."""

        def decide(before: Stored) -> Stored | None:
            now = self._now()
            standing = self._judge(presented, before.secret, microseconds(now))
            if before.session.status != SESSION_STATUS_ACTIVE or standing is not Standing.STOLEN:
                return None
            return before.over(rules.STOLEN, now)

        try:
            await self._store.change(tenant, presented.session_id, decide, stolen=True)
        except ApiError:
            # The token is refused all the same; its next use tries again.
            self._left.inc()
        else:
            self._revoked.inc()


def _refused(why: str, presented: Presented, entry: Entry, *more: Caller) -> Refused:
    """SESSION_INVALID as any other, of a token that is genuine: its session's tenant is to know."""
    user = Session.FromString(entry.session).user_id
    return Refused(rules.invalid(), why, Caller(entry.tenant, user, frozenset(), 0.0, presented.session_id), *more)


def _calling() -> tuple[Caller, ...]:
    call = context.current()
    return () if call is None or call.caller is None else (call.caller,)


def _too_often() -> ApiError:
    return ApiError(
        Code.RESOURCE_EXHAUSTED,
        "REFRESHED_TOO_OFTEN",
        f"The session was refreshed {rotation.REMEMBERED} times within its grace: use the newest token.",
        retry_after=5.0,
    )
