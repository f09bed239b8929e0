"""The key that a tenant's checkpoints are signed with, from the key file of the platform."""

from base64 import b64encode
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.config import Config
from launcher import keys
from launcher.failure import misuse
from launcher.verifier.note import BadNote, Key, key_id, parse_key

_PURPOSE: Final = "audit checkpoint key"
_ED25519: Final = b"\x01"


def local_key(config: Config, tenant: str) -> tuple[str, Key]:
    """As `<name>+<hash>+<key>`, for signed notes (C2SP), and ready to verify with. Raises Failure (2) where there is no key
    file, or for a tenant that is none; KeyFileError for a file without the deployment's secret."""
    origin = f"{quote(config.auth.issuer, safe=':/~')}/audit/{tenant}"
    private = Ed25519PrivateKey.from_private_bytes(keys.existing(config).secret(_PURPOSE))
    public = private.public_key().public_bytes_raw()
    text = f"{origin}+{key_id(origin, public).hex()}+{b64encode(_ED25519 + public).decode()}"
    try:
        return text, parse_key(text)
    except BadNote:
        raise misuse(f"{tenant!r} is not a tenant.") from None
