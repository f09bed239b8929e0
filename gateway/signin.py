"""`POST` and `DELETE /api/sessions:cookie`: a session token as the browser's cookie, and away with it.

Neither makes nor ends a session; that is CreateSession and RevokeSession.
"""

from collections.abc import Callable
from typing import Final

from bas.sessions.v2.sessions_pb2 import Session
from chassis.auth import tokens
from chassis.clock import Clock
from chassis.errors import Code, invalid_field, unimplemented
from gateway import crosssite
from gateway.auth import session_token
from gateway.cookies import secure, set_cookie
from gateway.problems import NO_STORE, Headers, HttpError, method_not_allowed
from gateway.request import Request
from gateway.sessions import Sessions, invalid
from gateway.transcoding.body import parse

PATH: Final = "/sessions:cookie"
"""Relative to the version."""
ALLOW: Final = b"DELETE, OPTIONS, POST"

_DEADLINE: Final = 1.0


class CookieSignIn:
    """`sessions` is None where they are no part of the deployment."""

    def __init__(
        self,
        sessions: Sessions | None,
        clock: Clock,
        new_trace: Callable[[], str],
        *,
        max_body: int,
        body_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._new_trace = new_trace
        self._max_body = max_body
        self._body_seconds = body_seconds

    async def serve(self, request: Request) -> tuple[int, Headers, bytes]:
        """Raises ApiError."""
        if request.method not in ("POST", "DELETE"):
            raise method_not_allowed(ALLOW)
        # A client that is no browser may: here a cookie that came by itself counts for nothing.
        if crosssite.own_origin(request) is False:
            raise crosssite.refused()
        if request.method == "DELETE":
            if request.has_body and await request.body(self._max_body, self._body_seconds):
                raise HttpError(400, Code.INVALID_ARGUMENT, "BODY_UNEXPECTED", "This method takes no body.")
            return 204, [NO_STORE, set_cookie("", 0, secure=secure(request))], b""
        return await self._sign_in(request)

    async def _sign_in(self, request: Request) -> tuple[int, Headers, bytes]:
        if self._sessions is None:
            raise unimplemented("The sessions service is not part of this deployment.")
        token = await self._token(request)
        asked = request.timeout()
        seconds = _DEADLINE if asked is None else asked
        answer = await self._sessions.authenticate(token, seconds, request.metadata(self._new_trace))
        cookie = set_cookie(token, self._remaining(answer.session), secure=secure(request))
        return 204, [NO_STORE, cookie], b""

    async def _token(self, request: Request) -> str:
        authorization = request.header(b"authorization")
        given = session_token(authorization)
        if authorization and given is None:  # a caller token is no session
            raise invalid()
        body = b""
        if request.has_body:
            body = await request.body(self._max_body, self._body_seconds)
        if not body:
            if given is None:
                raise tokens.missing()
            return given
        request.media_type()
        token = _named(parse(body))
        if given is not None and given != token:
            raise invalid_field("token", "It is not the session token of the Authorization header.")
        return token

    def _remaining(self, session: Session) -> int:
        """Seconds to the end that no use can put off. The idle time-out is the service's to watch: a cookie that ended
        with it would sign out who is busy."""
        end = session.create_time.seconds + session.absolute_ttl.seconds
        return max(1, end - int(self._clock.now().timestamp()))


def _named(document: object) -> str:
    if not isinstance(document, dict):
        raise invalid_field("body", 'An object is expected: {"token": "bas_…"}.')
    for name in document:
        if name != "token":
            raise invalid_field(str(name)[:64], "There is no such field.")
    token = document.get("token")
    if token is None:
        raise tokens.missing()
    if not isinstance(token, str):
        raise invalid_field("token", "A string is expected.")
    return token
