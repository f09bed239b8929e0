"""Who reads the log is recorded in it: once for each caller and minute, before anything is shown."""

import hmac
from typing import Final

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Entry
from chassis import context
from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import ApiError, Code
from services.audit.appending import Appender
from services.audit.trees import Kept

ACTION_READ: Final = "audit.read"
RESOURCE_TYPE: Final = "audit-log"
REMEMBERED: Final = 10_000
"""Callers whose last record is known; of others the store is asked, which keeps it to one a minute all the same."""

_MINUTE: Final = 60


class Readings:
    """`secret` makes keys that do not tell of whom they are: a record's key outlives its personal data."""

    def __init__(self, appender: Appender, secret: bytes, clock: Clock) -> None:
        self._appender = appender
        self._secret = secret
        self._clock = clock
        self._known: Kept[tuple[str, str, str], int] = Kept(REMEMBERED)

    async def record(self, caller: Caller) -> None:
        """Raises what the store raises: what cannot be recorded is not shown."""
        who = (caller.tenant, caller.subject, caller.session_id)
        minute = int(self._clock.now().timestamp()) // _MINUTE
        if self._known.get(who) == minute:
            return
        (outcome,) = await self._appender.store(caller.tenant, [self._entry(caller, minute)])
        # Another process may have recorded it, of another request.
        if isinstance(outcome, ApiError) and outcome.code is not Code.ALREADY_EXISTS:
            raise outcome
        self._known.put(who, minute)

    def _entry(self, caller: Caller, minute: int) -> Entry:
        about = "\n".join((caller.tenant, caller.subject, caller.session_id, str(minute))).encode()
        entry = Entry(
            idempotency_key=f"read-{hmac.digest(self._secret, about, 'sha256').hex()[:40]}",
            action=ACTION_READ,
            outcome=OUTCOME_SUCCESS,
        )
        attribute(entry, caller)
        entry.resource.type = RESOURCE_TYPE
        return entry


def attribute(entry: Entry, caller: Caller) -> None:
    """Say who did it, and in which request."""
    entry.actor.subject = caller.subject
    entry.actor.session_id = caller.session_id
    call = context.current()
    if call is not None:
        entry.request_id = call.request_id
