"""Ids that the platform makes, and etags."""

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32 in lower case: no i, l, o or u to be misread."""
_ID_BYTES: Final = 16
_ID_LENGTH: Final = 26
_ETAG_LENGTH: Final = 20


def new_id(random_bytes: Callable[[int], bytes]) -> str:
    """A new id: 128 random bits as 26 characters of lower-case Crockford base32."""
    number = int.from_bytes(random_bytes(_ID_BYTES), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_ID_LENGTH - 1), -1, -5))


def etag_of(version: str) -> str:
    """The etag of a stored version (AIP-154): opaque, 20 hexadecimal digits, the same on every replica. Without quotes;
    HTTP puts them around it."""
    return sha256(version.encode()).hexdigest()[:_ETAG_LENGTH]


def etag_matches(etag: str, version: str) -> bool:
    """Whether `etag` is that of `version`, in constant time. The empty etag, which asks for nothing, matches all."""
    return not etag or hmac.compare_digest(etag.encode(), etag_of(version).encode())
