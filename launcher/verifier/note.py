"""Signed notes with a checkpoint (C2SP signed-note, C2SP tlog-checkpoint), and the keys that they are verified with."""

import re
from base64 import b64decode
from binascii import Error
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_BYTES: Final = 64 * 1024
_ED25519: Final = b"\x01"
_HASH_BYTES: Final = 32
_ID_BYTES: Final = 4
_NAME: Final = re.compile(r"[^\s+]{1,256}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_LEAST_LINES: Final = 3


class BadNote(ValueError):
    """A note or a key that does not hold; the text says what is wrong, in words that follow what it is."""


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    key_id: bytes
    """4 bytes."""
    value: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A public key with the name of the log that it signs."""

    name: str
    key_id: bytes
    public: Ed25519PublicKey

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}"


@dataclass(frozen=True, slots=True)
class Note:
    """What was signed, and by whom it claims to be: nothing is true of it before `verify`."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: tuple[Signature, ...]


def key_id(name: str, public: bytes) -> bytes:
    """By which a signature names its key, 4 bytes."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_ID_BYTES]


def parse_key(text: str) -> Key:
    """A key as `<name>+<8 hexadecimal digits>+<base64 of 0x01 and the public key>`. Raises BadNote."""
    parts = text.strip().split("+", 2)
    try:
        name, hashed, encoded = parts
        raw = b64decode(encoded, validate=True)
        if not _NAME.fullmatch(name) or raw[:1] != _ED25519:
            raise BadNote("is not an Ed25519 key of a signed note")
        public = Ed25519PublicKey.from_public_bytes(raw[1:])
    except (ValueError, Error) as problem:
        if isinstance(problem, BadNote):
            raise
        raise BadNote("is not a key as `bas audit key` prints one: <name>+<hash>+<key>") from None
    made = Key(name, key_id(name, raw[1:]), public)
    if made.key_id.hex() != hashed.lower():
        raise BadNote("is damaged: its hash does not fit")
    return made


def parse(text: str) -> Note:
    """Understand a checkpoint: origin, size, root, further lines that have no meaning here, an empty line, signatures.
    Raises BadNote."""
    signed, found, under = text.rpartition("\n\n")
    if not found or not under.endswith("\n") or len(text) > MOST_BYTES:
        raise BadNote("is not a signed note")
    lines = signed.split("\n")
    if len(lines) < _LEAST_LINES or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise BadNote("is not a checkpoint: origin, size and root are expected")
    try:
        root = b64decode(lines[2], validate=True)
    except (ValueError, Error):
        root = b""
    if len(root) != _HASH_BYTES:
        raise BadNote("has no root hash of 32 bytes")
    signatures = []
    for line in under.removesuffix("\n").split("\n"):
        matched = _SIGNATURE.fullmatch(line)
        if matched is None:
            raise BadNote("has a line among its signatures that is none")
        try:
            raw = b64decode(matched[2], validate=True)
        except (ValueError, Error):
            raise BadNote("has a signature that is not base64") from None
        signatures.append(Signature(matched[1], raw[:_ID_BYTES], raw[_ID_BYTES:]))
    return Note((signed + "\n").encode(), lines[0], int(lines[1]), root, tuple(signatures))


def verify(note: Note, key: Key) -> None:
    """That the holder of the key's private half has signed the note, as a checkpoint of the log of the key's name. Raises
    BadNote, which tells another log, another key and a wrong signature apart."""
    if note.origin != key.name:
        raise BadNote(f"is of another log: {note.origin!r}, not {key.name!r}")
    ours = [each for each in note.signatures if each.name == key.name and each.key_id == key.key_id]
    if not ours:
        others = ", ".join(f"{each.name}+{each.key_id.hex()}" for each in note.signatures)
        raise BadNote(f"was signed with another key: {others}, not {key}")
    for each in ours:
        try:
            key.public.verify(each.value, note.text)
        except InvalidSignature:
            raise BadNote("has a signature that does not fit: the checkpoint or its signature was altered") from None
