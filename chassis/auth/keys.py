"""Key files: the Ed25519 keys that sign caller tokens, and the deployment's own secret, as one JWKS (RFC 7517, RFC 8037).

The last Ed25519 key of the file that has its private half signs; every one of them verifies. A file of public halves
alone is enough to verify. The `oct` key is the deployment secret: nothing uses it directly, each purpose gets a key
derived from it (RFC 5869).
"""

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chassis.config import ConfigError

_SECRET_BYTES: Final = 32
_MOST_BYTES: Final = 256 * 1024
_SETTING: Final = "BAS_AUTH_KEYS"


class KeyFileError(ConfigError):
    """The key file cannot be read, made or understood; the message names the setting and what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    private: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """What a key file holds. `signing` is None for a file of public keys."""

    verifying: Mapping[str, Ed25519PublicKey]
    signing: SigningKey | None = None
    deployment_secret: bytes | None = field(default=None, repr=False)

    def secret(self, purpose: str) -> bytes:
        """32 bytes for `purpose`, the same in every process of the deployment. Raises KeyFileError without a secret."""
        if self.deployment_secret is None:
            raise KeyFileError(
                f"The key file has no `oct` key, from which secrets are derived: let {_SETTING} name the deployment's"
                " private key file."
            )
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"bas/" + purpose.encode())
        return derive.derive(self.deployment_secret)


def load(path: Path) -> KeySet:
    """Read the keys at `path`. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise _unreadable(path, problem) from None
    return parse(text, str(path))


def load_or_create(path: Path, random_bytes: Callable[[int], bytes]) -> KeySet:
    """Read the keys at `path`, or make the file (mode 0600) if there is none.

    Any number of processes may start at once: all of them end with the keys of the one whose file came first, and
    none ever sees a part of a file. Raises KeyFileError.
    """
    if not path.exists():
        private = Ed25519PrivateKey.from_private_bytes(random_bytes(32))
        secret = {"kty": "oct", "use": "deployment", "kid": "deployment", "k": _encode(random_bytes(_SECRET_BYTES))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                _temporary(path, {"keys": [secret, _jwk(private, random_bytes)]}, random_bytes) as made,
                suppress(FileExistsError),
            ):
                path.hardlink_to(made)  # unlike a rename, never replaces the file of a process that was faster
        except OSError as problem:
            raise _unwritable(path, problem) from None
    return load(path)


def rotate(path: Path, random_bytes: Callable[[int], bytes]) -> KeySet:
    """Add a key, which signs from now on; tokens of the older ones stay good. Raises KeyFileError."""
    folder = -1
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # two rotations at once must not lose each other's key
        load(path)
        content = json.loads(path.read_bytes())
        content["keys"].append(_jwk(Ed25519PrivateKey.from_private_bytes(random_bytes(32)), random_bytes))
        with _temporary(path, content, random_bytes) as made:
            made.replace(path)
    except OSError as problem:
        raise _unwritable(path, problem) from None
    finally:
        if folder >= 0:
            os.close(folder)
    return load(path)


def public_jwks(keys: KeySet) -> dict[str, Any]:
    """The verifying halves as a JWKS that may be given away."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "alg": "EdDSA",
                "use": "sig",
                "kid": kid,
                "x": _encode(key.public_bytes_raw()),
            }
            for kid, key in keys.verifying.items()
        ]
    }


def parse(text: bytes, where: str) -> KeySet:
    """Understand a JWKS. Members and key types that are not ours are ignored (RFC 7517 section 5). Raises KeyFileError."""
    try:
        keys = json.loads(text)["keys"] if len(text) <= _MOST_BYTES else None
        return _key_set(keys)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise KeyFileError(
            f"The key file {where} is damaged or not a JWKS: restore it from a backup, or move it away to have a new"
            f" one made (tokens signed before then stop working); {_SETTING} names another file."
        ) from None


def _key_set(keys: Any) -> KeySet:
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise TypeError
    verifying: dict[str, Ed25519PublicKey] = {}
    signing, secret = None, None
    for key in keys:
        if key.get("kty") == "oct":
            secret = _decode(key["k"])
            if len(secret) < _SECRET_BYTES:
                raise ValueError
        elif key.get("kty") == "OKP" and key.get("crv") == "Ed25519":
            kid, public = key["kid"], Ed25519PublicKey.from_public_bytes(_decode(key["x"]))
            if not isinstance(kid, str) or not kid or kid in verifying:
                raise ValueError
            verifying[kid] = public
            if "d" in key:
                signing = SigningKey(kid, Ed25519PrivateKey.from_private_bytes(_decode(key["d"])))
                if signing.private.public_key() != public:
                    raise ValueError
    if not verifying:
        raise ValueError
    return KeySet(MappingProxyType(verifying), signing, secret)


def _jwk(private: Ed25519PrivateKey, random_bytes: Callable[[int], bytes]) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": random_bytes(8).hex(),
        "x": _encode(private.public_key().public_bytes_raw()),
        "d": _encode(private.private_bytes_raw()),
    }


@contextmanager
def _temporary(path: Path, content: dict[str, Any], random_bytes: Callable[[int], bytes]) -> Iterator[Path]:
    """A whole, synced file beside `path`, mode 0600, gone afterwards."""
    made = path.with_name(f".{path.name}.{random_bytes(8).hex()}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        yield made
    finally:
        made.unlink(missing_ok=True)


def _unreadable(path: Path, problem: OSError) -> KeyFileError:
    return KeyFileError(
        f"The key file {path} cannot be read ({problem.strerror}): make it readable to this user, or let {_SETTING} name"
        " another."
    )


def _unwritable(path: Path, problem: OSError) -> KeyFileError:
    return KeyFileError(
        f"The key file {path} cannot be written ({problem.strerror}): make its folder writable, or let {_SETTING}"
        " or BAS_DATA_DIR name another place."
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
