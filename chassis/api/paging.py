"""Page sizes and page tokens (AIP-158).

A token is base64url, without padding, of a 16-byte tag and the cursor: the tag is HMAC-SHA256, cut to 128 bits, over
the cursor and everything that the token is bound to. The binding itself is not carried, so a token says nothing about
a tenant and cannot be moved to another one.
"""

import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chassis.errors import ApiError, invalid_field
from chassis.store.port import Value

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000

_TAG: Final = 16
_FORMAT: Final = b"\x01"
_LONGEST: Final = 4096
_INTEGER: Final = struct.Struct(">q")
_DOUBLE: Final = struct.Struct(">d")
_LENGTH: Final = struct.Struct(">H")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def page_size(requested: int) -> int:
    """How many items the page may have: 0 means 50, more than 1000 means 1000. Negative: INVALID_ARGUMENT."""
    if requested < 0:
        raise invalid_field("page_size", "must not be negative; 0 means 50")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a page token belongs to: `shape` holds every request field that decides which items are listed, in which
    order (filter, order_by, a parent's id), in one fixed sequence for each method; not page_size."""

    tenant: str
    method: str
    shape: tuple[str, ...] = ()

    def digest_input(self) -> bytes:
        parts = [part.encode() for part in (self.tenant, self.method, *self.shape)]
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class PageTokens:
    """Makes and reads the page tokens of one service; every replica has the same `secret` (32 random bytes)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, listing: Listing, cursor: Sequence[Value]) -> str:
        """The token that goes on behind `cursor` (`Query.after`: scalars only, integers of 64 bits, aware datetimes).

        Raises ValueError for a value that no ordered field can hold.
        """
        body = _FORMAT + b"".join(_encode(value) for value in cursor)
        return urlsafe_b64encode(self._tag(listing, body) + body).rstrip(b"=").decode()

    def read(self, listing: Listing, token: str) -> tuple[Value, ...] | None:
        """The cursor of `token`, None for the empty token, which is the first page.

        Anything that this secret did not issue for this very listing is INVALID_ARGUMENT on `page_token`, in the same
        words whatever is wrong with it.
        """
        if not token:
            return None
        if len(token) > _LONGEST or not token.isascii():
            raise _refused()
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise _refused() from None
        # The decoder skips foreign characters and stray last bits; one cursor has exactly one token.
        if urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
            raise _refused()
        tag, body = raw[:_TAG], raw[_TAG:]
        if not hmac.compare_digest(tag, self._tag(listing, body)) or body[:1] != _FORMAT:
            raise _refused()
        return _decode(body[1:])

    def _tag(self, listing: Listing, body: bytes) -> bytes:
        bound = listing.digest_input()
        return hmac.digest(self._secret, len(bound).to_bytes(4, "big") + bound + body, "sha256")[:_TAG]


def _refused() -> ApiError:
    return invalid_field(
        "page_token",
        "is not a token of this list: pass next_page_token as it was given, with the same filter and order, "
        "or leave it out to start again",
    )


def _encode(value: Value) -> bytes:  # noqa: PLR0911 - one line a type
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            try:
                return b"i" + _INTEGER.pack(value)
            except struct.error:
                raise ValueError("an integer of a cursor has at most 64 bits") from None
        case float():
            return b"d" + _DOUBLE.pack(value)
        case datetime():
            return b"w" + _INTEGER.pack((value - _EPOCH) // _MICROSECOND)
        case str():
            return b"s" + _sized(value.encode())
        case bytes():
            return b"b" + _sized(value)
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be part of a cursor")


def _sized(raw: bytes) -> bytes:
    if len(raw) > 0xFFFF:  # noqa: PLR2004 - what the length prefix holds
        raise ValueError("a text of a cursor has at most 65535 bytes")
    return _LENGTH.pack(len(raw)) + raw


def _decode(body: bytes) -> tuple[Value, ...]:
    """The inverse of `_encode`; only ever given bytes whose tag was right."""
    values: list[Value] = []
    at = 0
    while at < len(body):
        kind, at = body[at : at + 1], at + 1
        if kind in _CONSTANTS:
            values.append(_CONSTANTS[kind])
        elif kind in b"sb":
            (size,) = _LENGTH.unpack_from(body, at)
            raw, at = body[at + 2 : at + 2 + size], at + 2 + size
            values.append(raw.decode() if kind == b"s" else raw)
        else:
            (number,) = (_DOUBLE if kind == b"d" else _INTEGER).unpack_from(body, at)
            at += 8
            values.append(_EPOCH + timedelta(microseconds=number) if kind == b"w" else number)
    return tuple(values)


_CONSTANTS: Final[dict[bytes, Value]] = {b"n": None, b"t": True, b"f": False}
