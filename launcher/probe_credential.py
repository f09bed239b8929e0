"""The credential of our own probes: health is open on loopback only, elsewhere any caller may ask."""

from typing import Final

from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant, mint
from chassis.clock import Clock
from chassis.config import Auth

_TTL: Final = 60.0
_FRESH: Final = 30.0


class ProbeCredential:
    """Call metadata with a token that may do nothing, minted anew before it gets old; none without a private key."""

    def __init__(self, keys: KeySet, auth: Auth, clock: Clock) -> None:
        self._keys = keys
        self._auth = auth
        self._clock = clock
        self._minted = float("-inf")
        self._metadata: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> tuple[tuple[str, str], ...]:
        now = self._clock.monotonic()
        if self._keys.signing is not None and now - self._minted >= _FRESH:
            grant = Grant("probe", "bas-probe", (), min(_TTL, self._auth.max_ttl))
            self._metadata = (("authorization", f"Bearer {mint(self._keys, self._auth, grant, self._clock.now())}"),)
            self._minted = now
        return self._metadata
