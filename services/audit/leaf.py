"""What is hashed of an entry: canonical JSON (RFC 8785) of its public fields and of the hash of its personal part. No I/O.

    personal_hash = SHA-256(salt ‖ JCS({"ip": …, "sessionId": …, "subject": …}))
    leaf_hash     = SHA-256(0x00 ‖ JCS({"action": …, "entryId": …, "idempotencyKey": …, "metadata": {…}, "occurTime": …,
                    "outcome": …, "personalHash": base64, "reason": …, "recordTime": …, "requestId": …,
                    "resource": {"id": …, "type": …}}))

Each name is always there, and its value is as in the API's JSON. The sequence is not: the leaf's place in the tree says it.
So whoever has an exported line can compute both again, with no code of ours; docs/audit.md says how. A field that a later
release adds to an entry is not in this form: it needs another, told apart by a name that this one does not have.
"""

from base64 import b64encode
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Final

from bas.audit.v2.audit_pb2 import Actor, Entry, Outcome
from services.audit.merkle import leaf_hash

SALT_BYTES: Final = 32


def personal_hash(salt: bytes, actor: Actor) -> bytes:
    """32 bytes."""
    text = f'{{"ip":{_quoted(actor.ip)},"sessionId":{_quoted(actor.session_id)},"subject":{_quoted(actor.subject)}}}'
    return sha256(salt + text.encode()).digest()


def leaf_of(entry: Entry, personal: bytes) -> bytes:
    """32 bytes. `personal` is the hash of the personal part, which need not be there any more."""
    return leaf_hash(canonical(entry, personal))


def canonical(entry: Entry, personal: bytes) -> bytes:
    """The canonical JSON of the leaf. Raises ValueError for a time that RFC 3339 cannot write."""
    resource = entry.resource
    record_time = entry.record_time.ToJsonString()
    occur_time = record_time if entry.occur_time == entry.record_time else entry.occur_time.ToJsonString()
    return (
        f'{{"action":{_quoted(entry.action)},"entryId":{_quoted(entry.entry_id)},'
        f'"idempotencyKey":{_quoted(entry.idempotency_key)},"metadata":{_map(entry.metadata)},'
        f'"occurTime":"{occur_time}","outcome":"{Outcome.Name(entry.outcome)}",'
        f'"personalHash":"{b64encode(personal).decode()}","reason":{_quoted(entry.reason)},'
        f'"recordTime":"{record_time}","requestId":{_quoted(entry.request_id)},'
        f'"resource":{{"id":{_quoted(resource.id)},"type":{_quoted(resource.type)}}}}}'
    ).encode()


def _map(metadata: "object") -> str:
    """RFC 8785 sorts names by their UTF-16 code units."""
    items = sorted(dict(metadata).items(), key=_utf16)  # type: ignore[call-overload]  # a map of texts
    return "{" + ",".join(f"{_quoted(name)}:{_quoted(value)}" for name, value in items) + "}"


def _utf16(item: tuple[str, str]) -> bytes:
    return item[0].encode("utf-16-be")
