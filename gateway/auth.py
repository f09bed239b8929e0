"""Who is calling: the credential of a request, and nothing else, says so.

A caller token is verified here. A session token, as a bearer or in the session cookie, is exchanged for one.
"""

from collections.abc import Callable
from typing import Final, Protocol

from chassis.clock import Clock
from chassis.context import Caller
from chassis.errors import unauthenticated
from gateway import crosssite
from gateway.cookies import session_cookie
from gateway.request import Request
from gateway.sessions import Sessions
from gateway.sse.port import Credential
from gateway.upstream import Metadata

_SCHEME: Final = "bearer "
_SESSION_TOKEN: Final = "bearer bas_"  # noqa: S105 - what one begins with, not a secret


class TokenVerifier(Protocol):
    """`chassis.auth.verifier.Verifier` is one."""

    def verify(self, authorization: str) -> Caller:
        """The caller named by `Bearer <token>`. Raises UNAUTHENTICATED: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED."""
        ...


def session_token(authorization: str) -> str | None:
    """The session token of an `Authorization` header, None if it holds something else."""
    if authorization[: len(_SESSION_TOKEN)].lower() != _SESSION_TOKEN:
        return None
    return authorization[len(_SCHEME) :]


class Authenticator:
    """`sessions` is None where they are no part of the deployment: a session token is then as good as any other text
    that is no token, and a cookie is none."""

    def __init__(
        self, verifier: TokenVerifier, sessions: Sessions | None, clock: Clock, new_trace: Callable[[], str]
    ) -> None:
        self._verifier = verifier
        self._sessions = sessions
        self._monotonic = clock.monotonic
        self._new_trace = new_trace

    def begin(self, request: Request) -> str | None:
        """Verify a caller token; of a session token return the text, which `exchange` is to be asked about. A header
        wins over a cookie. Raises ApiError: UNAUTHENTICATED, CROSS_SITE_REQUEST, COOKIE_AMBIGUOUS."""
        authorization = request.header(b"authorization")
        token = session_token(authorization)
        if token is not None:
            if self._sessions is None:
                raise unauthenticated("TOKEN_INVALID", "The token is not valid.")
            return token
        if self._sessions is not None and b"authorization" not in request.headers:
            token = session_cookie(request)
            if token is not None:
                if request.method not in crosssite.SAFE and not crosssite.own_origin(request):
                    raise crosssite.refused()
                return token
        self._verifier.verify(authorization)
        request.credential = authorization
        return None

    async def exchange(self, request: Request, token: str, seconds: float) -> None:
        """Let the request go on with a caller token of the session; the time that takes is taken off `seconds`, its
        deadline. Raises what `Sessions.exchange` raises."""
        if self._sessions is None:
            raise unauthenticated("TOKEN_INVALID", "The token is not valid.")
        started = self._monotonic()
        request.credential = await self._sessions.exchange(token, seconds, request.metadata(self._new_trace))
        request.session_token = token
        request.spent = self._monotonic() - started

    def credential(self, request: Request) -> Credential:
        """Of a request that was let in: who it is that was. Raises UNAUTHENTICATED when that is over already."""
        return Credential(self._verifier.verify(request.credential), request.credential, request.session_token)

    async def renew(self, credential: Credential, seconds: float, metadata: Metadata) -> Credential:
        """The credential as it is now; `metadata` goes along with the question whose session it is. Raises what `begin`
        and `exchange` raise."""
        authorization = credential.authorization
        if credential.session_token and self._sessions is not None:
            authorization = await self._sessions.exchange(credential.session_token, seconds, metadata)
        return Credential(self._verifier.verify(authorization), authorization, credential.session_token)
