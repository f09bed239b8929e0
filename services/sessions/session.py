"""The rules of a session: what a caller may set, how it is used, how it ends, what is shown of it. No I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from bas.sessions.v2.sessions_pb2 import (
    SESSION_STATUS_ACTIVE,
    SESSION_STATUS_EXPIRED,
    SESSION_STATUS_REVOKED,
    Session,
    SessionStatus,
)
from chassis.api.masks import apply_update
from chassis.errors import ApiError, Code, unauthenticated
from services.sessions.timeouts import Limits, Timeouts, chosen, end_of, touch_at

STATUSES: Final = (SESSION_STATUS_ACTIVE, SESSION_STATUS_EXPIRED, SESSION_STATUS_REVOKED)

STOLEN: Final = "token used after it was exchanged"
ENDED: Final = "SESSION_ENDED"
"""Why a token was refused, for the audit log: its session was revoked or has expired."""
REUSED: Final = "SESSION_TOKEN_REUSED"
"""It had been exchanged, and its grace was over."""
FOREIGN: Final = "SESSION_OF_ANOTHER_TENANT"
"""A caller of one tenant has sent the token of another's session."""
DISPLACED: Final = "displaced by a newer session"


def invalid() -> ApiError:
    """The one answer to a token that is malformed, unknown, expired, revoked or another tenant's."""
    return unauthenticated("SESSION_INVALID", "The session token is not valid.")


def too_many(most: int) -> ApiError:
    return ApiError(
        Code.FAILED_PRECONDITION,
        "SESSION_LIMIT",
        f"The user has {most} sessions, which is the most there may be: revoke one first.",
    )


def started(session_id: str, given: Session, limits: Limits, now: datetime) -> Session:
    """The session that a create stores: the caller's fields of `given`, the rest ours. Raises INVALID_ARGUMENT."""
    timeouts = chosen(
        given.idle_ttl.ToTimedelta() if given.HasField("idle_ttl") else None,
        given.absolute_ttl.ToTimedelta() if given.HasField("absolute_ttl") else None,
        limits,
    )
    session = Session(
        session_id=session_id,
        user_id=given.user_id,
        device_id=given.device_id,
        scopes=given.scopes,
        metadata=given.metadata,
        status=SESSION_STATUS_ACTIVE,
    )
    session.idle_ttl.FromTimedelta(timeouts.idle)
    session.absolute_ttl.FromTimedelta(timeouts.absolute)
    for time in (session.create_time, session.update_time, session.last_seen_time):
        time.FromDatetime(now)
    session.expire_time.FromDatetime(end_of(now, now, timeouts, limits.step))
    return session


def updated(current: Session, patch: Session, mask: FieldMask, now: datetime) -> Session | None:
    """The session with what `mask` names taken from `patch`; None when nothing would change. Raises INVALID_ARGUMENT."""
    changed = apply_update(current, patch, mask)
    if changed == current:
        return None
    _forward(changed.update_time, now)
    return changed


def use(session: Session, step: timedelta, now: datetime) -> None:
    """Change in place: it was used now. A time that was shown does not go back, whatever the clock does."""
    _forward(session.last_seen_time, now)
    last_seen = when(session.last_seen_time)
    session.expire_time.FromDatetime(end_of(when(session.create_time), last_seen, timeouts_of(session), step))


def end(session: Session, reason: str, now: datetime) -> None:
    """Change in place, for good. What its time-outs ended already stays EXPIRED, and looks as it did; that is stored
    all the same, for other clocks may think otherwise."""
    if not live(session, now):
        session.status = SESSION_STATUS_EXPIRED
        return
    session.status = SESSION_STATUS_REVOKED
    session.revoke_reason = reason
    _forward(session.update_time, now)
    session.revoke_time.CopyFrom(session.update_time)


def live(session: Session, now: datetime) -> bool:
    return session.status == SESSION_STATUS_ACTIVE and now < when(session.expire_time)


def status_at(session: Session, now: datetime) -> SessionStatus.ValueType:
    """The status to show: time-outs pass without anybody writing it down."""
    if session.status == SESSION_STATUS_ACTIVE and not live(session, now):
        return SESSION_STATUS_EXPIRED
    return session.status


def touch_time(session: Session, step: timedelta) -> datetime:
    """From when on its use is to be written to the store."""
    return touch_at(when(session.last_seen_time), timeouts_of(session), step)


def removable_at(session: Session, revoked_kept: timedelta) -> datetime:
    """From when on a clean-up may remove the session."""
    if session.status == SESSION_STATUS_REVOKED:
        return when(session.revoke_time) + revoked_kept
    return when(session.expire_time)


def timeouts_of(session: Session) -> Timeouts:
    return Timeouts(session.idle_ttl.ToTimedelta(), session.absolute_ttl.ToTimedelta())


def when(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)


def _forward(time: Timestamp, now: datetime) -> None:
    """Set to now, unless another replica's clock was ahead of ours: a time that was shown does not go back."""
    if now > when(time):
        time.FromDatetime(now)
