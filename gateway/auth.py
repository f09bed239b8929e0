"""Who is calling: the bearer credential of a request, and nothing else, says so."""

from typing import Final, Protocol

from chassis.context import Caller
from chassis.errors import unauthenticated

_SESSION_TOKEN: Final = "bearer bas_"  # noqa: S105 - what one begins with, not a secret


class TokenVerifier(Protocol):
    """`chassis.auth.verifier.Verifier` is one."""

    def verify(self, authorization: str) -> Caller:
        """The caller named by `Bearer <token>`. Raises UNAUTHENTICATED: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED."""
        ...


class Authenticator:
    """Session tokens (`bas_…`) are exchanged here once the sessions service is part of the deployment; until then one
    is as good as any other text that is no token."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def authenticate(self, authorization: str) -> Caller:
        """Raises ApiError UNAUTHENTICATED."""
        if authorization[: len(_SESSION_TOKEN)].lower() == _SESSION_TOKEN:
            raise unauthenticated("TOKEN_INVALID", "The token is not valid.")
        return self._verifier.verify(authorization)
