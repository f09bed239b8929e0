"""The rules of an entry: its id, what the log adds to it, when two are the same. No I/O."""

from datetime import datetime
from hashlib import sha256
from typing import Final

from bas.audit.v2.audit_pb2 import Entry
from chassis.errors import ApiError, Code

_ID_BYTES: Final = 16
_TENANT_END: Final = b"\n"
"""No tenant's id has one, so no two pairs of tenant and key are the same text."""


def entry_id_of(tenant: str, idempotency_key: str) -> str:
    """32 hexadecimal digits: the same key names the same entry, for ever."""
    digest = sha256(b"bas audit entry\n" + tenant.encode() + _TENANT_END + idempotency_key.encode()).digest()
    return digest[:_ID_BYTES].hex()


def recorded(tenant: str, given: Entry, now: datetime) -> Entry:
    """The entry as it is stored: the caller's fields of `given`, the rest ours; without a sequence."""
    entry = Entry()
    entry.CopyFrom(given)
    entry.ClearField("sequence")
    entry.entry_id = entry_id_of(tenant, given.idempotency_key)
    entry.record_time.FromDatetime(now)
    if not entry.HasField("occur_time"):
        entry.occur_time.CopyFrom(entry.record_time)
    entry.actor.SetInParent()
    entry.resource.SetInParent()
    return entry


def same(first: Entry, given: Entry) -> bool:
    """Whether an entry given again is the one that was stored, as far as that still says what it was."""
    again = Entry()
    again.CopyFrom(given)
    again.entry_id = first.entry_id
    again.record_time.CopyFrom(first.record_time)
    again.ClearField("sequence")
    if not again.HasField("occur_time"):
        again.occur_time.CopyFrom(first.record_time)
    again.actor.SetInParent()
    again.resource.SetInParent()
    if not first.HasField("actor"):
        again.ClearField("actor")
    return again == first


def key_reused() -> ApiError:
    """Another entry was appended under that key: it stays as it is."""
    return ApiError(
        Code.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_REUSED",
        "An entry with another content was appended under this idempotency_key before, and stays: make a new key for each"
        " entry that is not a repetition.",
    )
