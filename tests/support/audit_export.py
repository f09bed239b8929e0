"""An audit log's export as it is specified (docs/audit.md), written by no code of the platform: what verifiers are held to."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "bas/audit/acme"
NO_ACTION: Mapping[str, Any] = {
    "entryId": "", "idempotencyKey": "", "action": "", "outcome": "OUTCOME_UNSPECIFIED", "reason": "", "metadata": {},
    "requestId": "",
}  # fmt: skip
"""How the API's JSON shows an entry with nothing in it."""

Line = dict[str, Any]


class LogKey:
    def __init__(self, seed: int = 1, origin: str = ORIGIN) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.origin = origin
        self._public = b"\x01" + self.private.public_key().public_bytes_raw()
        self.id = sha256(origin.encode() + b"\n" + self._public).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.origin}+{self.id.hex()}+{base64(self._public)}"

    def note(self, size: int, root: bytes) -> str:
        text = f"{self.origin}\n{size}\n{base64(root)}\n"
        return f"{text}\n— {self.origin} {base64(self.id + self.private.sign(text.encode()))}\n"


def base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def canonical(value: object) -> bytes:
    """Of ASCII names: RFC 8785."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def seal(record: Line) -> Line:
    """The record with the hashes that belong to it."""
    entry = record["entry"]
    if "actor" in entry:
        record["personalHash"] = base64(sha256(_raw(record["personalSalt"]) + canonical(entry["actor"])).digest())
    public = {name: value for name, value in entry.items() if name not in ("actor", "sequence")}
    public["personalHash"] = record["personalHash"]
    record["leafHash"] = base64(sha256(b"\x00" + canonical(public)).digest())
    return record


def record(number: int, **changes: Any) -> Line:
    """An entry's line (what is under its "entry"). `changes` are to the entry itself."""
    entry: Line = {
        "entryId": f"id{number:024d}",
        "sequence": str(number),
        "idempotencyKey": f"key-{number}",
        "actor": {"subject": f"user-{number % 7}", "sessionId": f"s{number % 3}", "ip": "192.0.2.7"},
        "action": "device.updated",
        "resource": {"type": "device", "id": f"d{number % 11}"},
        "outcome": "OUTCOME_SUCCESS",
        "reason": "",
        "metadata": {"paths": "displayName", "from": "β"} if number % 5 == 4 else {},
        "occurTime": f"2026-01-02T03:04:05.{number % 1000:03d}Z",
        "recordTime": "2026-01-02T03:04:05Z",
        "requestId": f"r{number}",
    }
    salt = base64(sha256(b"salt %d" % number).digest())
    return seal(
        {"entry": entry | changes, "personalSalt": salt, "personalHash": "", "leafHash": "", "cursor": f"c{number}"}
    )


def erased(whole: Line) -> Line:
    entry = {name: value for name, value in whole["entry"].items() if name != "actor"}
    return whole | {"entry": entry, "personalSalt": ""}


def dropped(whole: Line) -> Line:
    return whole | {
        "entry": {**NO_ACTION, "sequence": whole["entry"]["sequence"]},
        "personalSalt": "",
        "personalHash": "",
    }


def leaf(line: Line) -> bytes:
    return _raw(line["leafHash"])


def checkpoint(note: str) -> Line:
    origin, size, root, *_ = note.split("\n")
    return {"origin": origin, "treeSize": size, "rootHash": root, "signTime": "2026-01-02T03:04:06Z", "note": note}


def written(records: Iterable[Line], key: LogKey, note: str | None = None) -> list[bytes]:
    """The lines of the file, without their ends."""
    kept = list(records)
    note = note or key.note(len(kept), root_of([leaf(each) for each in kept]))
    return [_line({"checkpoint": checkpoint(note)}), *(_line({"entry": each}) for each in kept)]


def save(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def _line(value: Line) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _raw(text: str) -> bytes:
    return b64decode(text)
