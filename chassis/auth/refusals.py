"""Calls that were refused, counted by who was refused what: what the audit log is to hear of them, in bounded memory.

Only a genuine credential says whose log an entry belongs into. A refusal of anything else is one more in a counter.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import ApiError, Code
from chassis.telemetry.metrics import Metrics

OF_TENANT: Final = 64
"""Kinds of refusals of one tenant that are told apart in a window."""
IN_ALL: Final = 1024
"""The same, of all tenants."""
FURTHER: Final = "FURTHER_REFUSALS"
"""Reason of the one tally of a tenant for all that there was no room to tell apart."""

_REFUSALS: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED})


class Refused(ApiError):
    """A refusal of a genuine credential: `callers` are those it names, of whose tenants each is to know. `why` is the
    reason for them; whoever called gets `answer`, which may say less."""

    def __init__(self, answer: ApiError, why: str, *callers: Caller) -> None:
        super().__init__(answer.code, answer.reason, answer.message, metadata=answer.metadata)
        self.why = why
        self.callers = callers


class Refusal(NamedTuple):
    """What is counted together. `method` is a gRPC path, empty where the request named none."""

    tenant: str
    subject: str
    session_id: str
    reason: str
    method: str


@dataclass(slots=True)
class Tally:
    """How often, and when. `request_id` is the first one's."""

    count: int
    first: datetime
    last: datetime
    request_id: str


class Refusals:
    """Of one target of a process, in one event loop. `kept`: there is an audit log to tell, else only the metric counts.

    The first kinds of refusals of a window have a tally each until it ends; further ones share one for each tenant. None
    is displaced: a flood does not wash away what was there before it. One tenant alone cannot fill the room of all.
    """

    def __init__(self, clock: Clock, metrics: Metrics, *, kept: bool = True) -> None:
        self._now = clock.now
        self._kept = kept
        self._counter = metrics.counter("bas_refusals", "Calls refused for who the caller is, by reason.", ("reason",))
        self._unrecorded = metrics.counter(
            "bas_refusals_unrecorded", "Refusals, or entries that sum some up, that may be missing in the audit log."
        )
        self._tallies: dict[Refusal, Tally] = {}
        self._kinds: dict[str, int] = {}

    def caught(self, error: ApiError, method: str, request_id: str) -> None:
        """Count `error` if it is a refusal. To be called once for each call that fails, and for none that succeeds."""
        if error.code not in _REFUSALS:
            return
        if not isinstance(error, Refused):
            self._counter.labels(error.reason).inc()
            return
        self._counter.labels(error.why).inc()
        if self._kept:
            for caller in error.callers:
                self._note(Refusal(caller.tenant, caller.subject, caller.session_id, error.why, method), request_id)

    def take(self) -> dict[Refusal, Tally]:
        """End the window: what was counted in it."""
        taken, self._tallies, self._kinds = self._tallies, {}, {}
        return taken

    def lost(self, count: int) -> None:
        """So many have no entry, or may have none."""
        self._unrecorded.inc(count)

    @property
    def size(self) -> int:
        """Tallies of this window."""
        return len(self._tallies)

    def _note(self, refusal: Refusal, request_id: str) -> None:
        tally = self._tallies.get(refusal)
        if tally is None:
            kinds = self._kinds.get(refusal.tenant, 0)
            if kinds < OF_TENANT and len(self._tallies) < IN_ALL:
                self._kinds[refusal.tenant] = kinds + 1
            else:
                refusal = Refusal(refusal.tenant, "", "", FURTHER, "")
                tally = self._tallies.get(refusal)
        now = self._now()
        if tally is not None:
            tally.count += 1
            tally.last = now
        elif len(self._tallies) < 2 * IN_ALL:
            self._tallies[refusal] = Tally(1, now, now, request_id)
        else:
            self.lost(1)
