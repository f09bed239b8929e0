"""Whether those who listen still may: credentials end, and sessions are revoked.

One calendar for all: connections stand in it at the second at which there is something to do about their credential. A
bearer token ends then. For a session its service is asked again, some time before the caller token ends that was signed
for it, and once more until then while nobody can tell; nothing is sent on the strength of a token that has ended.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from bas.events.v2.events_pb2 import LoggedEvent
from bas.events.v2.events_service_pb2 import END_REASON_CREDENTIAL_EXPIRED, END_REASON_SESSION_REVOKED
from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import ApiError, Code
from gateway.sse.connection import Connection
from gateway.sse.port import Credential

SCOPE: Final = "events:read"
SESSION_SOURCE: Final = "/bas/sessions"
SESSION_REVOKED: Final = "session.revoked"
SESSION_EXPIRED: Final = "session.expired"
_SUBJECT: Final = "sessions/"
_LEAD: Final = 20.0
"""Seconds before the end of a session's caller token at which the session is asked about, at the earliest."""
_SECONDS: Final = 2.0
_AGAIN: Final = 3.0
_AT_ONCE: Final = 32
_REMEMBERED: Final = 10_000
"""Ended sessions that are remembered, for connections that were let in just before."""


class Ends(Protocol):
    def __call__(self, connection: Connection, reason: int, *, warn: bool = False) -> None:
        """Say goodbye, and close."""
        ...


class Authority:
    """`end` is how a connection ends; `random` gives [0, 1)."""

    def __init__(self, end: Ends, *, clock: Clock, random: Callable[[], float]) -> None:
        self._end = end
        self._clock = clock
        self._random = random
        self._due: dict[int, set[Connection]] = {}
        self._when: dict[Connection, int] = {}
        self._sessions: dict[tuple[str, str], set[Connection]] = {}
        self._over: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._looked = int(clock.now().timestamp())

    def watch(self, connection: Connection) -> None:
        """From now until `forget`. It may end at once."""
        if connection.session is not None:
            reason = self._over.get(connection.session)
            if reason is not None:  # between the check of the credential and now
                self._end(connection, reason, warn=True)
                return
            self._sessions.setdefault(connection.session, set()).add(connection)
        self._plan(connection)

    def forget(self, connection: Connection) -> None:
        """Harmless when it is not watched."""
        self._unplan(connection)
        if connection.session is not None:
            listening = self._sessions.get(connection.session)
            if listening is not None:
                listening.discard(connection)
                if not listening:
                    del self._sessions[connection.session]

    def tick(self) -> None:
        """To be called about twice a second."""
        now = int(self._clock.now().timestamp())
        if now - self._looked > len(self._due):
            late = [second for second in self._due if second <= now]
        else:
            late = [second for second in range(self._looked, now + 1) if second in self._due]
        self._looked = now
        for second in late:
            for connection in tuple(self._due.get(second, ())):
                self._unplan(connection)
                self._judge(connection)

    def heard(self, tenant: str, logged: LoggedEvent | None) -> None:
        """An event of the tenant's sessions, or None where one may have been missed: then all are asked about."""
        if logged is None:
            for session, listening in tuple(self._sessions.items()):
                if session[0] == tenant:
                    self._ask_all(listening)
            return
        event = logged.event
        reasons = {SESSION_REVOKED: END_REASON_SESSION_REVOKED, SESSION_EXPIRED: END_REASON_CREDENTIAL_EXPIRED}
        reason = reasons.get(event.type)
        if reason is None or event.source != SESSION_SOURCE or not event.subject.startswith(_SUBJECT):
            return
        session = tenant, event.subject.removeprefix(_SUBJECT)
        self._over[session] = reason
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        for connection in tuple(self._sessions.get(session, ())):
            self._end(connection, reason, warn=True)

    async def close(self) -> None:
        """Ask no more."""
        asking = tuple(self._asking)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _plan(self, connection: Connection) -> None:
        when = connection.expires
        if connection.renew is not None and connection.session is not None:
            now = self._clock.now().timestamp()
            when = max(now + 1, when - _LEAD * (0.5 + self._random() / 2))
        self._plan_at(connection, when)

    def _plan_at(self, connection: Connection, when: float) -> None:
        second = max(int(when) + (when > int(when)), self._looked)
        self._due.setdefault(second, set()).add(connection)
        self._when[connection] = second

    def _unplan(self, connection: Connection) -> None:
        second = self._when.pop(connection, None)
        if second is not None:
            due = self._due[second]
            due.discard(connection)
            if not due:
                del self._due[second]

    def _judge(self, connection: Connection) -> None:
        over = self._clock.now().timestamp() >= connection.expires
        if over or connection.renew is None or connection.session is None:
            self._end(connection, END_REASON_CREDENTIAL_EXPIRED, warn=True)
        else:
            self._ask(connection)

    def _ask_all(self, listening: set[Connection]) -> None:
        for connection in tuple(listening):
            if connection in self._when:
                self._unplan(connection)
                self._ask(connection)

    def _ask(self, connection: Connection) -> None:
        asking = asyncio.create_task(self._renew(connection), name="sse-renew")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _renew(self, connection: Connection) -> None:
        renew = connection.renew
        if renew is None or connection.is_over():
            return
        try:
            async with self._turns:
                credential = await renew(_SECONDS)
        except ApiError as error:
            if connection.is_over():
                return
            if error.code is Code.UNAUTHENTICATED:
                self._end(connection, END_REASON_CREDENTIAL_EXPIRED, warn=True)
            else:  # nobody can tell: again soon, and not beyond the end of the token that is held
                again = self._clock.now().timestamp() + _AGAIN * (0.5 + self._random())
                self._plan_at(connection, min(again, connection.expires))
            return
        if connection.is_over():
            return
        if not _same(connection, credential.caller):
            self._end(connection, END_REASON_CREDENTIAL_EXPIRED, warn=True)
            return
        connection.expires = credential.caller.expires_at
        self._plan(connection)


def session_of(credential: Credential) -> tuple[str, str] | None:
    """(tenant, session id) of a credential that is a session's: of a caller token, too, that was signed for one."""
    caller = credential.caller
    return (caller.tenant, caller.session_id) if caller.session_id else None


def _same(connection: Connection, caller: Caller) -> bool:
    """Whether what may be listened to is still what is listened to."""
    return caller.may(SCOPE) and connection.session == (caller.tenant, caller.session_id)
