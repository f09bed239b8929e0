"""A session as a document, and as an entry of the cache.

The document has the message's fields by their proto names, and beside them what no message shows: `secret`, what is
kept of its tokens, and `slot`, its place among the user's. The entry has in front what a token is judged by, so that
a hit is judged and answered without parsing a message.
"""

import struct
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from bas.sessions.v2.sessions_pb2 import SESSION_STATUS_ACTIVE, Session
from chassis.api.ids import etag_of
from chassis.store.documents import MessageCodec
from chassis.store.encoding import microseconds
from chassis.store.port import Document, Fields, Key
from services.sessions import session as rules
from services.sessions.filters import COLLECTION, ENDED, LOOKUP, REMOVABLE, SLOTS
from services.sessions.rotation import Secret

REGISTRY: Final = "$sessions"
"""The partition of what the service itself keeps; no tenant's id has such a character."""

_CODEC: Final = MessageCodec(Session)


@dataclass(frozen=True, slots=True)
class Stored:
    """A session at a version. `session.etag` is that version's, `session.status` the one that is stored. Decide on a
    copy: the message is not frozen. `slot` is None where sessions were not counted; `ended` is when somebody wrote that it
    is over, and stays."""

    tenant: str
    session: Session
    version: str
    secret: Secret = field(repr=False)
    slot: int | None = None
    ended: datetime | None = None

    def copy(self, secret: Secret | None = None) -> "Stored":
        session = Session()
        session.CopyFrom(self.session)
        return replace(self, session=session, secret=secret or self.secret)

    def over(self, reason: str, now: datetime) -> "Stored":
        """A copy that is ended for good."""
        after = replace(self.copy(), ended=now)
        rules.end(after.session, reason, now)
        return after

    @property
    def key(self) -> Key:
        return session_key(self.tenant, self.session.session_id)


def session_key(tenant: str, session_id: str) -> Key:
    return Key(tenant, COLLECTION, session_id)


def lookup_key(session_id: str) -> Key:
    """Of the document that tells whose session an id is, for who has nothing but a token."""
    return Key(REGISTRY, LOOKUP, session_id)


def slot_key(tenant: str, user_id: str, slot: int) -> Key:
    return Key(tenant, SLOTS, f"{user_id}/{slot}")


def fields_of(held: Stored) -> Fields:
    fields = _CODEC.fields(held.session)
    del fields["etag"]
    secret = held.secret
    fields["secret"] = {
        "generation": secret.generation,
        "digest": secret.digest,
        "exchanged": list(secret.exchanged),
    }
    fields["slot"] = held.slot
    if held.ended is not None:
        fields[ENDED] = held.ended
    return fields


def lookup_of(held: Stored, revoked_kept: timedelta) -> Fields:
    """`removable_time` is not later than the session's own; a clean-up that finds it too early moves it."""
    return {"tenant": held.tenant, REMOVABLE: rules.removable_at(held.session, revoked_kept)}


def stored(document: Document) -> Stored:
    session = _CODEC.message(document.fields)
    session.etag = etag_of(document.version)
    kept: Any = document.fields["secret"]
    secret = Secret(kept["generation"], kept["digest"], tuple(kept["exchanged"]))
    slot: Any = document.fields.get("slot")
    ended: Any = document.fields.get(ENDED)
    return Stored(document.key.tenant, session, document.version, secret, slot, ended)


def decoy() -> Document:
    """A session's document that is in no store, as much work to read as a common one."""
    session = Session(user_id="u" * 26, device_id="d" * 26, scopes=("devices:read", "users:read"))
    for time in (session.create_time, session.update_time, session.last_seen_time, session.expire_time):
        time.FromSeconds(1)
    session.idle_ttl.FromSeconds(1)
    session.absolute_ttl.FromSeconds(1)
    held = Stored(REGISTRY, session, "", Secret(1, bytes(32)))
    return Document(held.key, "", fields_of(held))


# Whether it may be live, when it ends, when a use is to be written, generation, digest, how many exchanges, how long
# the tenant is; then the exchanges' moments, the tenant, and the Session as it is on the wire, without its id: the key
# has that already.
_HEAD: Final = struct.Struct(">?qqI32sBB")
_MOMENT: Final = struct.Struct(">q")


class Entry(NamedTuple):
    """A session as the cache has it. Moments are microseconds since the epoch."""

    active: bool
    end: int
    touch_at: int
    secret: Secret
    tenant: str
    session: bytes


def pack(held: Stored, step: timedelta) -> bytes:
    secret = held.secret
    tenant = held.tenant.encode()
    session = held.copy().session
    session.ClearField("session_id")
    head = _HEAD.pack(
        session.status == SESSION_STATUS_ACTIVE,
        microseconds(rules.when(session.expire_time)),
        microseconds(rules.touch_time(session, step)),
        secret.generation,
        secret.digest,
        len(secret.exchanged),
        len(tenant),
    )
    moments = b"".join(_MOMENT.pack(moment) for moment in secret.exchanged)
    return b"".join((head, moments, tenant, session.SerializeToString()))


def unpack(session_id: str, data: bytes) -> Entry:
    """What `pack` made of the session of that id."""
    active, end, touch_at, generation, digest, exchanges, tenant_size = _HEAD.unpack_from(data)
    at = _HEAD.size
    moments = tuple(_MOMENT.unpack_from(data, at + 8 * number)[0] for number in range(exchanges)) if exchanges else ()
    at += 8 * exchanges
    session_at = at + tenant_size
    tenant = data[at:session_at].decode()
    # Field 1 of a Session, its id, on the wire.
    session = b"".join((b"\x0a", _varint(len(session_id)), session_id.encode(), data[session_at:]))
    return Entry(active, end, touch_at, Secret(generation, digest, moments), tenant, session)


def answer(entry: Entry) -> bytes:
    """A serialized AuthenticateSessionResponse: fields 1 and 2, each with its length, as on the wire."""
    tenant = entry.tenant.encode()
    return b"".join((b"\x0a", _varint(len(entry.session)), entry.session, b"\x12", _varint(len(tenant)), tenant))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
