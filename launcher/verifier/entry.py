"""One line of an export: what it says, and the hash of its leaf, computed from nothing but the line.

What is hashed is told in docs/audit.md. A line as the gateway writes it is read by one regular expression, which is three
times as fast as to parse and to write JSON; any other line is read in full, and is refused if there is anything in it
that no hash covers: a field more, or a name that stands twice, which readers of JSON understand differently.
"""

import json
import re
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import sha256
from typing import Any, Final, NamedTuple

MOST_BYTES: Final = 1 << 20
"""Of one line: several times the largest entry with everything in it escaped."""

_HASH_BYTES: Final = 32
_LEAF: Final = b"\x00"
_TEXTS: Final = ("entryId", "idempotencyKey", "action", "outcome", "reason", "occurTime", "recordTime", "requestId")
_ACTOR: Final = ("ip", "sessionId", "subject")
_RESOURCE: Final = ("id", "type")
_ENTRY: Final = frozenset({*_TEXTS, "sequence", "actor", "resource", "metadata"})
_RECORD: Final = frozenset({"entry", "personalSalt", "personalHash", "leafHash", "cursor"})
_SEQUENCE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class State(Enum):
    """How much of an entry there still is."""

    WHOLE = "whole"
    ERASED = "erased"
    """Without its personal data."""
    DROPPED = "dropped"
    """Nothing but the hash of its leaf, after the time that entries are kept."""


class Fault(Enum):
    """What does not fit in a line by itself; the text follows the entry's name."""

    PERSONAL = "was altered: its actor, or the salt of it, does not give its personalHash"
    PUBLIC = "was altered: what it says does not give its leafHash"


class BadLine(ValueError):
    """A line that is no entry; the text says why."""


class Read(NamedTuple):
    """An entry that was read. `leaf` is computed (of a dropped one: stated), `stated` is what the line says it is."""

    sequence: int
    entry_id: str
    leaf: bytes
    stated: bytes
    state: State = State.WHOLE
    fault: Fault | None = None


def read(line: bytes) -> Read:
    """Understand a line, without its line end. Raises BadLine."""
    usual = _usual(line)
    if usual is None:
        return _read_in_full(line)
    (
        entry_id, number, key, subject, session, ip, action, kind, resource, outcome, reason, metadata, occurred, recorded,
        request, salt, personal, leaf,
    ) = usual.groups()  # fmt: skip
    if metadata != b"{}":
        metadata = _sorted(metadata)
    stated = a2b_base64(leaf)
    computed = sha256(
        b'\x00{"action":"%b","entryId":"%b","idempotencyKey":"%b","metadata":%b,"occurTime":"%b","outcome":"%b",'
        b'"personalHash":"%b","reason":"%b","recordTime":"%b","requestId":"%b","resource":{"id":"%b","type":"%b"}}'
        % (
            action,
            entry_id,
            key,
            metadata,
            occurred,
            outcome,
            personal,
            reason,
            recorded,
            request,
            resource,
            kind,
        )
    ).digest()
    actor = b'{"ip":"%b","sessionId":"%b","subject":"%b"}' % (ip, session, subject)
    if computed == stated and sha256(a2b_base64(salt) + actor).digest() == a2b_base64(personal) and _is_text(line):
        return Read(int(number), entry_id.decode(), computed, stated)
    return _read_in_full(line)  # which finds out what is wrong


def _sorted(metadata: bytes) -> bytes:
    """An object of texts without escapes, in canonical form; where a name stands twice, something that is not."""
    pairs = _PAIR.findall(metadata)
    if len({name for name, _ in pairs}) < len(pairs) or not _is_text(metadata):
        return b""
    return b"{%b}" % b",".join([b'"%b":"%b"' % pair for pair in sorted(pairs, key=_name)])


def _name(pair: tuple[bytes, bytes]) -> bytes:
    return _utf16(pair[0].decode())


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(name: str) -> str:
    return rf'"{name}":"([^"\\\x00-\x1f]*+)"'


def _hashed(name: str) -> str:
    """32 bytes, with nothing in the bits that are left over."""
    return rf'"{name}":"([A-Za-z0-9+/]{{42}}[AEIMQUYcgkosw048]=)"'


_VALUE: Final = r'"[^"\\\x00-\x1f]*+":"[^"\\\x00-\x1f]*+"'
_METADATA: Final = rf'"metadata":(\{{(?:{_VALUE}(?:,{_VALUE})*+)?\}})'
_PAIR: Final = re.compile(rb'"([^"]*+)":"([^"]*+)"')
_SALT: Final = (
    r'"personalSalt":"((?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?+)"'
)


_usual: Final[Callable[[bytes], "re.Match[bytes] | None"]] = re.compile(
    (
        rf'{{"entry":{{"entry":{{{_text("entryId")},"sequence":"(0|[1-9][0-9]{{0,18}})",{_text("idempotencyKey")},'
        rf'"actor":{{{_text("subject")},{_text("sessionId")},{_text("ip")}}},{_text("action")},'
        rf'"resource":{{{_text("type")},{_text("id")}}},{_text("outcome")},{_text("reason")},{_METADATA},'
        rf"{_text('occurTime')},{_text('recordTime')},{_text('requestId')}}},"
        rf'{_SALT},{_hashed("personalHash")},{_hashed("leafHash")},"cursor":"[^"\\\x00-\x1f]*+"}}}}'
    ).encode()
).fullmatch


def _read_in_full(line: bytes) -> Read:
    record = _record(line)
    entry = record["entry"]
    number = entry.get("sequence", "")
    if not isinstance(number, str) or not _SEQUENCE.fullmatch(number):
        raise BadLine("its sequence is no number")
    stated = _bytes(record, "leafHash", _HASH_BYTES)
    if _is_dropped(entry, record):
        return Read(int(number), "", stated, stated, State.DROPPED)
    personal = _bytes(record, "personalHash", _HASH_BYTES)
    leaf = sha256(_LEAF + _canonical(_public(entry, personal))).digest()
    erased = "actor" not in entry and not record.get("personalSalt")
    fault = None
    if leaf != stated:
        fault = Fault.PUBLIC
    elif not erased and not _opens(entry, record, personal):
        fault = Fault.PERSONAL
    return Read(int(number), entry["entryId"], leaf, stated, State.ERASED if erased else State.WHOLE, fault)


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode(), object_pairs_hook=_once)
    except BadLine:
        raise
    except (ValueError, RecursionError):
        raise BadLine("it is not JSON" if line else "it is empty") from None
    if isinstance(found, dict) and "error" in found:
        raise BadLine("it is an error of the export, which did not come to its end")
    record = found.get("entry") if isinstance(found, dict) and len(found) == 1 else None
    if not isinstance(record, dict) or not isinstance(record.get("entry"), dict):
        raise BadLine("it is not an entry")
    _nothing_more(record, _RECORD)
    _nothing_more(record["entry"], _ENTRY)
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise BadLine("it has a name twice in one object")
    return made


def _nothing_more(found: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in found:
        if name not in known:
            raise BadLine(f"it has a field that is in no entry: {name[:64]!r}")


def _is_dropped(entry: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether there is nothing in it but its sequence, and what stands there where nothing is."""
    said = {name for name, value in entry.items() if value not in ("", {}, None)} - {"sequence"}
    return (not said or (said == {"outcome"} and entry["outcome"] == "OUTCOME_UNSPECIFIED")) and not (
        record.get("personalSalt") or record.get("personalHash")
    )


def _public(entry: Mapping[str, Any], personal: bytes) -> dict[str, Any]:
    said: dict[str, Any] = {name: _string(entry, name) for name in _TEXTS}
    metadata = entry.get("metadata")
    if not isinstance(metadata, dict):
        raise BadLine("its metadata is no object")
    names = sorted(metadata, key=_utf16)
    said |= {
        "personalHash": b64encode(personal).decode(),
        "resource": _strings(entry, "resource", _RESOURCE),
        "metadata": {name: _string(metadata, name) for name in names},
    }
    return dict(sorted(said.items()))


def _opens(entry: Mapping[str, Any], record: Mapping[str, Any], personal: bytes) -> bool:
    """Whether actor and salt are what the leaf commits to; one without the other is not."""
    if "actor" not in entry:
        return False
    actor = _canonical(_strings(entry, "actor", _ACTOR))
    return sha256(_bytes(record, "personalSalt") + actor).digest() == personal


def _strings(found: Mapping[str, Any], name: str, fields: tuple[str, ...]) -> dict[str, str]:
    value = found.get(name)
    if not isinstance(value, dict):
        raise BadLine(f"its {name} is no object")
    _nothing_more(value, frozenset(fields))
    return {field: _string(value, field) for field in fields}


def _string(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise BadLine(f"its {name[:64]} is no text")
    return value


def _bytes(found: Mapping[str, Any], name: str, length: int | None = None) -> bytes:
    text = _string(found, name)
    try:
        raw = a2b_base64(text, strict_mode=True)
    except (ValueError, Error):
        raise BadLine(f"its {name} is not base64") from None
    if b64encode(raw).decode() != text:
        raise BadLine(f"its {name} is not base64 in its usual form")
    if length is not None and len(raw) != length:
        raise BadLine(f"its {name} has {len(raw)} bytes instead of {length}")
    return raw


def _canonical(value: object) -> bytes:
    """JSON as RFC 8785 writes texts and objects of them, which are sorted already. Raises BadLine for half of a pair of
    surrogates."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise BadLine("it has text that is no Unicode") from None


def _utf16(name: str) -> bytes:
    """By what RFC 8785 sorts names."""
    return name.encode("utf-16-be", "surrogatepass")
