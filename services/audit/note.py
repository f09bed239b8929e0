"""Checkpoints as signed notes (C2SP signed-note and tlog-checkpoint), and the key that they are verified with. No I/O.

bas/audit/acme
1000
<root in base64>

— bas/audit/acme <base64 of the 4 bytes that name the key, and the Ed25519 signature>
"""

from base64 import b64encode
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519: Final = b"\x01"


def origin_of(issuer: str, tenant: str) -> str:
    """The name of a tenant's log: that of the deployment and of the tenant, without what a note's names cannot hold."""
    return f"{quote(issuer, safe=':/~')}/audit/{tenant}"


class Signer:
    """Signs notes with the Ed25519 key of a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = _ED25519 + self._private.public_key().public_bytes_raw()

    def note(self, origin: str, size: int, root: bytes) -> str:
        """The same for the same tree, whenever and by whomever it is signed."""
        text = f"{origin}\n{size}\n{b64encode(root).decode()}\n"
        signature = b64encode(self._key_id(origin) + self._private.sign(text.encode())).decode()
        return f"{text}\n— {origin} {signature}\n"

    def verifier_key(self, origin: str) -> str:
        """`<name>+<8 hexadecimal digits>+<base64 of 0x01 and the public key>`."""
        return f"{origin}+{self._key_id(origin).hex()}+{b64encode(self._public).decode()}"

    def _key_id(self, origin: str) -> bytes:
        return sha256(origin.encode() + b"\n" + self._public).digest()[:4]
