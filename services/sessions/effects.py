"""What is told of a session's changes, never with anything of its tokens. No I/O.

| event | when |
|---|---|
| `session.created` | it was made |
| `session.updated` | a caller changed it; `changedPaths` says what |
| `session.refreshed` | its token was exchanged; the repetition of an exchange is none |
| `session.theft_detected` | a token came back after its grace; what becomes of the session is told next |
| `session.revoked` | it was ended; `reason` says why, if somebody did |
| `session.expired` | its time-outs ended it: told once, when that is written down or the session is cleaned up |

That it is in use is no event.
"""

from typing import Any, Final

from bas.sessions.v2.sessions_pb2 import (
    SESSION_STATUS_ACTIVE,
    SESSION_STATUS_EXPIRED,
    SESSION_STATUS_REVOKED,
    Session,
)
from chassis.outbox.announcements import Happening, changed_paths
from chassis.outbox.effects import message_data

_NO_CHANGE: Final = frozenset({"last_seen_time", "expire_time", "create_time", "update_time", "etag"})


def created(tenant: str, session: Session) -> Happening:
    return _happening(tenant, "session.created", session)


def changed(
    tenant: str, before: Session, after: Session, *, exchanged: bool = False, stolen: bool = False
) -> list[Happening]:
    """`exchanged`: its token has a successor; `stolen`: the change is because a token came back."""
    if after.status != before.status:
        happenings = [_happening(tenant, "session.theft_detected", before)] if stolen else []
        return [*happenings, _ended(tenant, after)]
    if exchanged:
        return [_happening(tenant, "session.refreshed", after)]
    paths = changed_paths(before, after, _NO_CHANGE)
    return [_happening(tenant, "session.updated", after, changedPaths=paths)] if paths else []


def removed(tenant: str, session: Session) -> list[Happening]:
    """What a clean-up tells of a session: that it expired, unless its end was told before."""
    if session.status != SESSION_STATUS_ACTIVE:
        return []
    over = Session()
    over.CopyFrom(session)
    over.status = SESSION_STATUS_EXPIRED
    return [_ended(tenant, over)]


def _ended(tenant: str, session: Session) -> Happening:
    if session.status != SESSION_STATUS_REVOKED:
        return _happening(tenant, "session.expired", session)
    more = {"reason": session.revoke_reason} if session.revoke_reason else {}
    return _happening(tenant, "session.revoked", session, **more)


def _happening(tenant: str, type_: str, session: Session, **more: Any) -> Happening:
    shown = message_data(session)
    shown.pop("etag", None)  # it follows from the commit that this is to be part of
    return Happening(tenant, type_, f"sessions/{session.session_id}", "session", shown, more)
