"""Cursors that do not show what they point at: a page token travels in URLs, and may end with somebody's name."""

from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.api.paging import Listing, PageTokens
from chassis.store.port import Value

_NONCE: Final = 12


class SealedTokens:
    """Page tokens whose texts are encrypted (AES-256-GCM). They are signed and bound by `PageTokens`, which keeps what
    is opened here to what was sealed here for the same list."""

    __slots__ = ("_random_bytes", "_seal", "_tokens")

    def __init__(self, tokens: PageTokens, secret: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._tokens = tokens
        self._seal = AESGCM(secret)
        self._random_bytes = random_bytes

    def issue(self, listing: Listing, cursor: Sequence[Value]) -> str:
        """The token that goes on behind `cursor`, which holds no bytes."""
        return self._tokens.issue(listing, [self._closed(value) for value in cursor])

    def read(self, listing: Listing, token: str) -> tuple[Value, ...] | None:
        """The cursor of `token`, None for the empty token. Raises INVALID_ARGUMENT on `page_token`."""
        cursor = self._tokens.read(listing, token)
        return None if cursor is None else tuple(self._opened(value) for value in cursor)

    def _closed(self, value: Value) -> Value:
        if not isinstance(value, str):
            return value
        nonce = self._random_bytes(_NONCE)
        return nonce + self._seal.encrypt(nonce, value.encode(), None)

    def _opened(self, value: Value) -> Value:
        if not isinstance(value, bytes):
            return value
        return self._seal.decrypt(value[:_NONCE], value[_NONCE:], None).decode()
