"""What is told of a user's changes, and what a removal owes. No I/O.

| event | when |
|---|---|
| `user.created` | it was registered |
| `user.updated` | a caller changed it; `changedPaths` says what, and not to what |
| `user.deleted` | it is gone |

Of the user only the id and the times are told. Address, name and metadata say who somebody is: whoever may read events
need not be allowed to read users, and an event cannot be taken back when a user is removed. Who may, asks by the id.
"""

from typing import Any, Final

from bas.users.v2.users_pb2 import User
from chassis.outbox.announcements import Happening, changed_paths
from chassis.outbox.effects import message_data

REVOKE_SESSIONS: Final = "revoke_user_sessions"
"""Kind of the effect that ends a removed user's sessions; its payload is the user's id, in UTF-8."""

_NO_CHANGE: Final = frozenset({"create_time", "update_time", "etag"})


def created(tenant: str, user: User) -> Happening:
    return _happening(tenant, "user.created", user)


def updated(tenant: str, before: User, after: User) -> list[Happening]:
    paths = changed_paths(before, after, _NO_CHANGE)
    return [_happening(tenant, "user.updated", after, changedPaths=paths)] if paths else []


def deleted(tenant: str, user_id: str) -> Happening:
    return _happening(tenant, "user.deleted", User(user_id=user_id))


def revocation_key(user_id: str) -> str:
    """In order with nothing but itself: sessions must end also while the events of the user cannot be published."""
    return f"sessions of users/{user_id}"


def _happening(tenant: str, type_: str, user: User, **more: Any) -> Happening:
    shown = User(user_id=user.user_id)
    for time in ("create_time", "update_time"):
        if user.HasField(time):
            getattr(shown, time).CopyFrom(getattr(user, time))
    return Happening(tenant, type_, f"users/{user.user_id}", "user", message_data(shown), more)
