"""By what sessions are filtered, and the indexes that the service needs.

A status of the API is not quite one of the store: a session expires without a write. So ACTIVE and EXPIRED are told
apart when a page is made (`listing.py`), and the store is asked for what may have the status.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bas.sessions.v2.sessions_pb2 import Session, SessionStatus
from chassis.api import filter_spec
from chassis.api.filter_spec import FilterSpec
from chassis.store import requests
from chassis.store.port import Filter, Index, Op, Order, Schema

COLLECTION: Final = "sessions"
SLOTS: Final = "slots"
LOOKUP: Final = "lookup"
REMOVABLE: Final = "removable_time"
ENDED: Final = "ended_time"
"""Only in sessions that somebody wrote to be over."""

_FILTERS: Final = FilterSpec(
    {
        "status": filter_spec.enum("status", SessionStatus.DESCRIPTOR, by_name=True),
        "device_id": filter_spec.text("device_id"),
    }
)
NEWEST_FIRST: Final = (Order("create_time", descending=True),)
LAST_ENDED_FIRST: Final = (Order(ENDED, descending=True),)

SCHEMA: Final = Schema(
    indexes=(
        Index(COLLECTION, ("user_id",), NEWEST_FIRST),
        Index(COLLECTION, ("user_id", "status"), NEWEST_FIRST),
        Index(COLLECTION, ("user_id", "device_id"), NEWEST_FIRST),
        Index(COLLECTION, ("user_id",), LAST_ENDED_FIRST),
        Index(LOOKUP, (), (Order(REMOVABLE),)),
        Index(LOOKUP, ("tenant",), (Order(REMOVABLE),)),
    ),
    ttl_fields=requests.TTL_FIELDS,
)

_MAY_SHOW: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "SESSION_STATUS_ACTIVE": frozenset({"SESSION_STATUS_ACTIVE"}),
        "SESSION_STATUS_EXPIRED": frozenset({"SESSION_STATUS_ACTIVE", "SESSION_STATUS_EXPIRED"}),
        "SESSION_STATUS_REVOKED": frozenset({"SESSION_STATUS_REVOKED"}),
    }
)
"""Status as shown → what may be stored then."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a user's sessions: what the store is asked, and what is looked at in each that it finds."""

    stored: tuple[Filter, ...]
    statuses: frozenset[str]
    not_devices: frozenset[str]
    nothing: bool
    canonical: str

    def has(self, session: Session) -> bool:
        """Whether a session, with the status as it is shown, is one of them."""
        return SessionStatus.Name(session.status) in self.statuses and session.device_id not in self.not_devices


def compile_filter(user_id: str, written: str) -> Wanted:
    """Raises INVALID_ARGUMENT on `filter`."""
    compiled = _FILTERS.compile(written)
    stored = [Filter("user_id", Op.EQ, user_id)]
    statuses = frozenset(_MAY_SHOW)
    not_devices = []
    for each in compiled.filters:
        if each.field == "status":
            several = each.op is Op.IN and not isinstance(each.value, str)
            statuses = frozenset(each.value if several else (each.value,))  # type: ignore[arg-type]  # names, all of them
        elif each.op is Op.EQ:
            stored.append(each)
        else:
            not_devices.append(str(each.value))
    may_be = sorted({status for shown in statuses for status in _MAY_SHOW[shown]})
    if len(may_be) == 1:
        stored.append(Filter("status", Op.EQ, may_be[0]))
    elif len(may_be) < len(_MAY_SHOW):
        stored.append(Filter("status", Op.IN, tuple(may_be)))
    return Wanted(tuple(stored), statuses, frozenset(not_devices), compiled.nothing, compiled.canonical)
