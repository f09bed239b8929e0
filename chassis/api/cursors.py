"""Positions in a log, as callers hold them: short, of `[A-Za-z0-9._-]`, opaque, and of one tenant only."""

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from chassis.errors import ApiError, invalid_field

_FORM: Final = re.compile(r"([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,18})\.([A-Za-z0-9_-]{12})", re.ASCII)
_MAC_BYTES: Final = 9


@dataclass(frozen=True, slots=True)
class Position:
    """Just after the event number `sequence` of a log; 0 is before the first. Sequences of two epochs have nothing to do
    with each other: the epoch changes when a log was lost or rolled back."""

    epoch: str
    sequence: int


def parse(text: str) -> Position | None:
    """The position that a cursor names, without a look at whose it is; None when it is no cursor."""
    found = _FORM.fullmatch(text)
    return None if found is None else Position(found[1], int(found[2]))


class Cursors:
    """Writes and reads cursors. `secret` is 32 bytes that all replicas share."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(secret, digestmod=sha256)

    def write(self, tenant: str, position: Position) -> str:
        """The cursor of a position."""
        return f"{position.epoch}.{position.sequence}.{self._mac(tenant, position.epoch, position.sequence)}"

    def read(self, tenant: str, text: str, field: str = "cursor") -> Position:
        """The position that `tenant` was given. Raises INVALID_ARGUMENT that names `field` for garbage, and for the cursor
        of another tenant."""
        position = parse(text)
        if position is None or not hmac.compare_digest(
            text[-12:], self._mac(tenant, position.epoch, position.sequence)
        ):
            raise invalid(field)
        return position

    def _mac(self, tenant: str, epoch: str, sequence: int) -> str:
        keyed = self._keyed.copy()
        keyed.update(f"{tenant}/{epoch}.{sequence}".encode())
        return urlsafe_b64encode(keyed.digest()[:_MAC_BYTES]).decode()


def invalid(field: str) -> ApiError:
    """What is not a cursor of this tenant's log."""
    return invalid_field(field, "A cursor as an earlier answer or event gave it is expected.")
