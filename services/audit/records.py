"""What the service keeps, as documents.

| document | says | written |
|---|---|---|
| `entries/{entry_id}` of the tenant | an entry; which arrival it came with, and as which of it | once; again when its personal data or its body goes |
| `batches/{first}` of the tenant | entries that were sequenced together: ids and leaves in order | once |
| `tiles/{level}.{index}` of the tenant | 256 hashes of the Merkle tree | once |
| `checkpoints/{size}` of the tenant | a signed note | once |
| `arrivals/{id}` of `$audit` | entries that were committed together: pending, or from which sequence on they are | twice |
| `unsigned/{tenant}/{first}` of `$audit` | a batch that no checkpoint covers yet | once, then removed |
| `tenants/{tenant}` of `$audit` | a tenant whose log has begun | once |

An entry and its arrival are one commit. An arrival that turns from pending to sequenced, its batch and the tiles that
become whole are another, with the arrival at the version that was read: so what is acknowledged is pending or sequenced,
never both, never neither, and never twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from bas.audit.v2.audit_pb2 import Entry
from chassis.store.encoding import EPOCH, microseconds
from chassis.store.port import Create, Document, Filter, Index, Key, Op, Order, Query, Schema, Update, Value, Write
from services.audit.edge import Tile

ENTRIES: Final = "entries"
BATCHES: Final = "batches"
TILES: Final = "tiles"
CHECKPOINTS: Final = "checkpoints"

REGISTRY: Final = "$audit"
"""The partition of what the service itself keeps; no tenant's id has such a character."""
ARRIVALS: Final = "arrivals"
UNSIGNED: Final = "unsigned"
TENANTS: Final = "tenants"

TIME: Final = "time"
ACTOR: Final = "actor"
ACTION: Final = "action"
RESOURCE: Final = "resource"
LANE: Final = "lane"

NEWEST: Final = (Order(TIME, descending=True),)
OLDEST: Final = (Order(TIME),)

SCHEMA: Final = Schema(
    indexes=(
        Index(ENTRIES, (), NEWEST),
        Index(ENTRIES, (), OLDEST),
        Index(ENTRIES, (ACTOR,), NEWEST),
        Index(ENTRIES, (ACTION,), NEWEST),
        Index(ENTRIES, (RESOURCE,), NEWEST, contains=frozenset({RESOURCE})),
        Index(BATCHES, (), (Order("first", descending=True),)),
        Index(CHECKPOINTS, (), (Order("size", descending=True),)),
        Index(ARRIVALS, (), (Order(LANE),)),
    ),
)
"""An entry is in five of them: by time, actor, action, kind of resource, and resource."""

_END: Final = "/"
_BEHIND: Final = "0"
"""The character after the `/` that a tenant's name ends in."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry at a version. `entry` has no sequence, and no actor once that was erased; it is None once the body was
    dropped, and with it `personal` is empty. `salt` is empty when the personal data are gone."""

    key: Key
    version: str
    entry: Entry | None
    salt: bytes
    personal: bytes
    leaf: bytes
    arrival: str
    place: int


@dataclass(frozen=True, slots=True)
class Pending:
    """An arrival that waits for its sequence numbers: ids of its entries, in their order, and their leaves, joined."""

    id: str
    version: str
    tenant: str
    lane: str
    ids: tuple[str, ...]
    leaves: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries from `first` on, in order."""

    first: int
    ids: tuple[str, ...]
    leaves: bytes

    @property
    def end(self) -> int:
        """The sequence behind the last of them, which is the size of the tree with all of them."""
        return self.first + len(self.ids)


def entry_key(tenant: str, entry_id: str) -> Key:
    return Key(tenant, ENTRIES, entry_id)


def entry_fields(entry: Entry, salt: bytes, personal: bytes, leaf: bytes, arrival: str, place: int) -> dict[str, Value]:
    """An entry as it is stored. Its message is bytes: it is searched by four fields, never changed, and written often."""
    fields: dict[str, Value] = {
        TIME: _moment(entry.record_time),
        ACTION: entry.action,
        RESOURCE: resource_terms(entry.resource.type, entry.resource.id),
        "body": entry.SerializeToString(),
        "personal": personal,
        "leaf": leaf,
        "arrival": arrival,
        "place": place,
    }
    if entry.HasField("actor"):
        fields[ACTOR] = entry.actor.subject
        fields["salt"] = salt
    return fields


def _moment(time: Timestamp) -> datetime:
    return EPOCH + timedelta(0, time.seconds, time.nanos // 1000)


def resource_terms(kind: str, name: str) -> list[Value]:
    """What a resource is found by: its kind, and, with an id, kind and id. No kind has a slash in it."""
    return [kind, resource_term(kind, name)] if name else [kind]


def resource_term(kind: str, name: str) -> str:
    return f"{kind}/{name}" if name else kind


def erased(stored: Stored) -> Update:
    """The entry without its personal data: what they were cannot be had from what is left."""
    if stored.entry is None:
        raise ValueError("an entry whose body was dropped has no personal data")
    public = Entry()
    public.CopyFrom(stored.entry)
    public.ClearField("actor")
    fields = entry_fields(public, b"", stored.personal, stored.leaf, stored.arrival, stored.place)
    return Update(stored.key, fields, version=stored.version)


def dropped(stored: Stored) -> Update:
    """What is left of an entry that is too old: that it was there, and the hash of its leaf."""
    fields: dict[str, Value] = {"leaf": stored.leaf, "arrival": stored.arrival, "place": stored.place}
    return Update(stored.key, fields, version=stored.version)


def stored(document: Document) -> Stored:
    fields: Mapping[str, Any] = document.fields
    body = fields.get("body")
    return Stored(
        document.key,
        document.version,
        None if body is None else Entry.FromString(body),
        fields.get("salt", b""),
        fields.get("personal", b""),
        fields["leaf"],
        fields["arrival"],
        fields["place"],
    )


def arrival_key(arrival: str) -> Key:
    return Key(REGISTRY, ARRIVALS, arrival)


def arrived(arrival: str, tenant: str, now: datetime, ids: Sequence[str], leaves: bytes) -> Create:
    """Entries that wait, in the order in which they came."""
    lane = f"{tenant}{_END}{microseconds(now):017d}"
    fields: dict[str, Value] = {LANE: lane, "tenant": tenant, "ids": list(ids), "leaves": leaves}
    return Create(arrival_key(arrival), fields)


def sequenced(pending: Pending, first: int) -> Update:
    """The arrival once its entries have their numbers, from `first` on. It is in nobody's lane any more."""
    return Update(arrival_key(pending.id), {"tenant": pending.tenant, "first": first}, version=pending.version)


def pending_of(document: Document) -> Pending:
    fields: Any = document.fields
    return Pending(
        document.key.id, document.version, fields["tenant"], fields[LANE], tuple(fields["ids"]), fields["leaves"]
    )


def first_of(document: Document) -> int | None:
    """From which sequence on the entries of an arrival are; None while they wait."""
    first: Any = document.fields.get("first")
    return first if isinstance(first, int) else None


def lanes_behind(tenant: str) -> Query:
    """The first arrival that waits, of the tenants behind this one; all of them behind the empty name."""
    return Query(
        REGISTRY, ARRIVALS, (Filter(LANE, Op.GT, f"{tenant}{_BEHIND}" if tenant else ""),), (Order(LANE),), limit=1
    )


def waiting(tenant: str, after: Pending | None, limit: int) -> Query:
    """The arrivals of a tenant that wait, oldest first."""
    filters = (Filter(LANE, Op.GT, f"{tenant}{_END}"), Filter(LANE, Op.LT, f"{tenant}{_BEHIND}"))
    return Query(REGISTRY, ARRIVALS, filters, (Order(LANE),), None if after is None else (after.lane, after.id), limit)


def tenant_of(document: Document) -> str:
    return str(document.fields["tenant"])


def batch_key(tenant: str, first: int) -> Key:
    return Key(tenant, BATCHES, f"{first:020d}")


def batched(tenant: str, batch: Batch, now: datetime) -> Create:
    fields: dict[str, Value] = {"first": batch.first, "ids": list(batch.ids), "leaves": batch.leaves, TIME: now}
    return Create(batch_key(tenant, batch.first), fields)


def batch_of(document: Document) -> Batch:
    fields: Any = document.fields
    return Batch(fields["first"], tuple(fields["ids"]), fields["leaves"])


def batches_down(tenant: str, first: int | None, limit: int) -> Query:
    """The batches whose first sequence is at most `first` (of all, when None), newest first."""
    filters = () if first is None else (Filter("first", Op.LE, first),)
    return Query(tenant, BATCHES, filters, (Order("first", descending=True),), limit=limit)


def tile_key(tenant: str, level: int, index: int) -> Key:
    return Key(tenant, TILES, f"{level}.{index}")


def tiled(tenant: str, tile: Tile) -> Create:
    fields: dict[str, Value] = {"hashes": tile.hashes}
    if tile.above:
        fields["above"] = list(tile.above)
    return Create(tile_key(tenant, tile.level, tile.index), fields)


def tile_of(document: Document) -> Tile:
    level, _, index = document.key.id.partition(".")
    fields: Any = document.fields
    return Tile(int(level), int(index), fields["hashes"], tuple(fields.get("above", ())))


def unsigned_key(tenant: str, first: int) -> Key:
    return Key(REGISTRY, UNSIGNED, f"{tenant}{_END}{first:020d}")


def unsigned(tenant: str, batch: Batch, now: datetime) -> Create:
    return Create(unsigned_key(tenant, batch.first), {"tenant": tenant, "size": batch.end, TIME: now})


def unsigned_behind(name: str, limit: int) -> Query:
    """The batches without a checkpoint behind that one, tenant by tenant, oldest first."""
    return Query(REGISTRY, UNSIGNED, after=(name,) if name else None, limit=limit)


def unsigned_of(tenant: str) -> str:
    """Before all of that tenant's."""
    return f"{tenant}{_END}"


def unsigned_after(tenant: str) -> str:
    """Behind all of that tenant's."""
    return f"{tenant}{_BEHIND}"


def begun(tenant: str) -> Write:
    """The tenant's log has its first batch."""
    return Create(Key(REGISTRY, TENANTS, tenant), {})


def tenants_behind(tenant: str, limit: int) -> Query:
    return Query(REGISTRY, TENANTS, after=(tenant,) if tenant else None, limit=limit)
