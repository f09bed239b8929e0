"""Session tokens: how they are made, read and recognised. No I/O.

`bas_<session id>_<secret>`, where the secret is 48 characters: the generation (4 bytes) and 256 bits that a server key,
the session's id and the generation determine, so that a generation's token can be named again by whoever holds the
key, and by nobody else. What is stored of a token is the SHA-256 of its whole text.
"""

import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

_PREFIX: Final = "bas"
_ALTERNATIVE: Final = b"-~"
"""For the `+` and `/` of base64: with these a token is one word in a URL, a cookie and a header."""
_GENERATION_BYTES: Final = 4
_SECRET_BYTES: Final = 36
_LONGEST: Final = 256
_WELL_FORMED: Final = re.compile(r"bas_([A-Za-z0-9.~-]{1,128})_[A-Za-z0-9~-]{48}").fullmatch
_DECOY: Final = "~"
"""What no id begins with that was ever made."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as somebody showed it. `session_id` is what it claims; `text` is empty for what is no token at all."""

    session_id: str
    text: str = field(repr=False)
    digest: bytes = field(repr=False)


def present(text: str) -> Presented:
    """Read a token of any length and content. What is malformed gets an id that no session has, so that it takes the
    way, and the time, of a token that is unknown."""
    found = _WELL_FORMED(text)
    if found is not None:
        return Presented(found[1], text, digest_of(text))
    digest = digest_of(f"{len(text)} {text[:_LONGEST]}")
    return Presented(_DECOY + digest.hex()[:25], "", digest)


def digest_of(text: str) -> bytes:
    """What is stored of a token."""
    return sha256(text.encode(errors="replace")).digest()


class SessionTokens:
    """Makes tokens with `key`, 32 bytes that all replicas share."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, session_id: str, generation: int) -> str:
        """The token of a generation: the same whenever it is asked for."""
        number = generation.to_bytes(_GENERATION_BYTES, "big")
        secret = hmac.digest(self._key, number + session_id.encode(), "sha256")
        return f"{_PREFIX}_{session_id}_{b64encode(number + secret, _ALTERNATIVE).decode()}"

    def generation(self, presented: Presented) -> int | None:
        """Of which generation the token is, or None when it was not made with this key."""
        if not presented.text:
            return None
        secret = b64decode(presented.text.rpartition("_")[2], _ALTERNATIVE)
        generation = int.from_bytes(secret[:_GENERATION_BYTES], "big")
        genuine = self.issue(presented.session_id, generation)
        return generation if hmac.compare_digest(genuine.encode(), presented.text.encode()) else None
