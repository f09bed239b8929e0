"""The documents of the outbox, all in one collection of a pseudo-tenant, found by one index.

A pending record has a `lane`: kind, hashed tenant, hashed key. Ordered by it, the records of a key lie together, those of
a tenant and a kind too, so whatever is blocked is jumped over by a cursor, and writes spread over the index whatever is
busy. A parked record has `parked` in its place, and is in nobody's way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, cast

from chassis.outbox.port import Effect
from chassis.store.encoding import EPOCH
from chassis.store.port import Document, Fields, Filter, Index, Key, Op, Order, Query, Schema, Value

TENANT: Final = "$outbox"
"""No tenant's name: those are FORMAT_ID."""
COLLECTION: Final = "outbox"
LANE: Final = "lane"
PARKED: Final = "parked"

SCHEMA: Final = Schema(
    indexes=(Index(COLLECTION, (), (Order(LANE),)), Index(COLLECTION, (), (Order(PARKED),))),
)
"""What the store of every service declares besides its own."""

_PART: Final = 8
_LANES: Final = 65_536
_BEHIND: Final = "/"
"""The character after the `.` that the parts of a lane end in."""

EVERY: Final = ""
"""Before every lane."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored effect. `place` orders the records of a lane: by commit, and within one commit by number."""

    document: Key
    version: str
    lane: str
    effect: Effect
    created: datetime
    by: str
    place: tuple[str, int]


@lru_cache(maxsize=_LANES)
def lane_of(kind: str, tenant: str, key: str) -> str:
    """The same for all effects that must stay in order. Two keys of one lane are a coincidence that costs nothing but time."""
    return f"{kind}.{_hashed(tenant)}.{_hashed(key)}"


def behind_tenant(lane: str) -> str:
    """Between the lane's tenant and the next one, within the lane's kind."""
    return lane.rpartition(".")[0] + _BEHIND


def behind_kind(kind: str) -> str:
    """Between the kind and the next one."""
    return kind + _BEHIND


def key_of(effect_id: str) -> Key:
    return Key(TENANT, COLLECTION, effect_id)


def fields_of(effect: Effect, created: datetime, by: str, number: int) -> dict[str, Value]:
    """A pending record, as it is committed with the state. `by` names the process, `number` grows within it."""
    return {
        LANE: lane_of(effect.kind, effect.tenant, effect.key),
        "kind": effect.kind,
        "tenant": effect.tenant,
        "key": effect.key,
        "payload": effect.payload,
        "created": created,
        "by": by,
        "number": number,
    }


def parked_fields(record: Record, now: datetime, attempts: int, reason: str) -> dict[str, Value]:
    """A record that is tried no more. It keeps the version that says where in its lane it was."""
    made = fields_of(record.effect, record.created, record.by, record.place[1])
    del made[LANE]
    return {**made, "commit": record.place[0], PARKED: now, "attempts": attempts, "reason": reason}


def retried_fields(fields: Fields) -> dict[str, Value]:
    """A parked record made pending again, at its old place in its lane."""
    kept = {name: value for name, value in fields.items() if name not in {PARKED, "attempts", "reason"}}
    return {**kept, LANE: lane_of(_text(fields, "kind"), _text(fields, "tenant"), _text(fields, "key"))}


def record_of(document: Document) -> Record:
    """A pending record."""
    fields = document.fields
    payload, created = cast("bytes", fields["payload"]), cast("datetime", fields["created"])
    commit = _text(fields, "commit") if "commit" in fields else document.version
    return Record(
        document.key,
        document.version,
        _text(fields, LANE),
        Effect(document.key.id, _text(fields, "kind"), _text(fields, "tenant"), _text(fields, "key"), payload),
        created,
        _text(fields, "by"),
        (commit, int(str(fields["number"]))),
    )


def pending_after(lane: str, limit: int) -> Query:
    """Pending records behind a lane, or behind what the functions above say, lane by lane."""
    return Query(TENANT, COLLECTION, (Filter(LANE, Op.GT, lane),), (Order(LANE),), limit=limit)


def pending_of(lane: str, after: tuple[Value, ...] | None, limit: int) -> Query:
    """The pending records of one lane, in no order that means anything."""
    filters = (Filter(LANE, Op.GE, lane), Filter(LANE, Op.LE, lane))
    return Query(TENANT, COLLECTION, filters, (Order(LANE),), after, limit)


def all_pending() -> Query:
    """For counting."""
    return pending_after(EVERY, 1)


def all_parked(after: tuple[Value, ...] | None = None, limit: int = 1) -> Query:
    """Parked records, those first that were parked first."""
    return Query(TENANT, COLLECTION, (Filter(PARKED, Op.GE, EPOCH),), (Order(PARKED),), after, limit)


def with_outbox(schema: Schema) -> Schema:
    """A service's schema, and the outbox's."""
    return Schema((*schema.indexes, *SCHEMA.indexes), schema.ttl_fields)


def _hashed(text: str) -> str:
    return blake2b(text.encode(), digest_size=_PART).hexdigest()


def _text(fields: Mapping[str, Value], name: str) -> str:
    return str(fields[name])
