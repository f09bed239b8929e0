"""From an `authorization` value to a caller, with a bounded memory of what was verified: a signature is checked once."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chassis.auth import tokens
from chassis.auth.keys import KeyFileError, KeySet, load
from chassis.clock import Clock
from chassis.config import Auth
from chassis.context import Caller

_SCHEME: Final = "bearer "
_LOOK_AGAIN: Final = 5.0
"""Least seconds between two looks at the key file for a `kid` that is not known: made-up ids must not cost reads."""


class Verifier:
    """Verifies caller tokens, in one event loop.

    Remembers up to `auth.verified_cache` verified tokens, the least recently used leaving first, and none for longer
    than it is valid. A token of an unknown key makes it look at the key file again, so a rotation needs no restart.
    """

    def __init__(self, keys: KeySet, auth: Auth, clock: Clock, reload: Callable[[], KeySet] | None = None) -> None:
        self._keys = keys
        self._auth = auth
        self._clock = clock
        self._reload = reload
        self._looked = -_LOOK_AGAIN + clock.monotonic()
        self._verified: OrderedDict[str, Caller] = OrderedDict()

    @classmethod
    def watching(cls, path: Path, keys: KeySet, auth: Auth, clock: Clock) -> "Verifier":
        """A verifier that takes up keys added to the file at `path` later."""
        return cls(keys, auth, clock, lambda: load(path))

    def verify(self, authorization: str) -> Caller:
        """The caller named by an `authorization` value, `Bearer <token>`. Raises UNAUTHENTICATED with TOKEN_MISSING,
        TOKEN_INVALID or TOKEN_EXPIRED."""
        caller = self._verified.get(authorization)
        if caller is None:
            return self._first_time(authorization)
        if self._clock.now().timestamp() >= caller.expires_at + self._auth.leeway:
            del self._verified[authorization]
            raise tokens.expired(caller)
        self._verified.move_to_end(authorization)
        return caller

    def __len__(self) -> int:
        """How many verified tokens are remembered."""
        return len(self._verified)

    def _first_time(self, authorization: str) -> Caller:
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        if scheme.lower() != _SCHEME or not token:
            raise tokens.missing()
        if self._reload is not None:
            self._look_again(token)
        caller = tokens.verify(token, self._keys, self._auth, self._clock.now())
        if self._auth.verified_cache:
            if len(self._verified) >= self._auth.verified_cache:
                self._verified.popitem(last=False)
            self._verified[authorization] = caller
        return caller

    def _look_again(self, token: str) -> None:
        kid = tokens.key_id(token)
        if kid is None or kid in self._keys.verifying or self._reload is None:
            return
        if self._clock.monotonic() - self._looked < _LOOK_AGAIN:
            return
        self._looked = self._clock.monotonic()
        try:
            self._keys = self._reload()
        except KeyFileError:
            return  # the keys that are known go on working; what is new stays unknown
        self._verified.clear()  # a key that was taken out of the file stops being believed
