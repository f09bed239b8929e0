"""Session tokens: whose one is, is asked of the sessions service each time; what the services behind get to see is a
short-lived caller token in its place.

Nothing about a session is remembered here but the caller token that was signed for it, and that is used only after the
service has just said that the session lives. So a revocation holds at the next request, on every gateway.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from bas.sessions.v2.sessions_service_pb2 import DESCRIPTOR, AuthenticateSessionRequest, AuthenticateSessionResponse
from chassis import policies
from chassis.auth.tokens import LEVELS, SERVICES, Grant
from chassis.clock import Clock
from chassis.errors import ApiError, Code, deadline_exceeded, internal, unauthenticated
from gateway.upstream import Metadata, UnaryCall

SERVICE: Final = "sessions"
AUTHENTICATE: Final = DESCRIPTOR.services_by_name["SessionService"].methods_by_name["AuthenticateSession"]
AUTHENTICATE_PATH: Final = policies.path(AUTHENTICATE)

MOST_BYTES: Final = 8 * 1024
"""A longer token is refused before anybody is asked about it."""
TTL: Final = 60.0
"""Seconds for which a caller token is good. It is used for half of them."""
_LEAST: Final = 5.0
"""The times in a token are whole seconds: one for fewer than these might be over while it is still used."""
_TOKENS: Final = 10_000
"""Caller tokens kept, of the sessions seen last."""
_LONGEST: Final = policies.of_method(AUTHENTICATE).max_deadline or 1.0
_RETRY_AFTER: Final = 1.0
_KNOWN: Final = frozenset(f"{service}:{level}" for service in SERVICES for level in LEVELS)
_REFUSED: Final = (Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT)

Issue = Callable[[Grant], str]
"""Signs a caller token with the deployment's keys."""


def invalid() -> ApiError:
    """The one answer to a token that is malformed, unknown, expired or revoked."""
    return unauthenticated("SESSION_INVALID", "The session token is not valid.")


class Sessions:
    """`authenticate` is the call of AuthenticateSession; `ttl` is how long a caller token is good, in seconds; `stretch` is
    what the call's longest deadline is multiplied by."""

    def __init__(
        self, authenticate: UnaryCall, issue: Issue, clock: Clock, ttl: float = TTL, stretch: float = 1.0
    ) -> None:
        self._authenticate = authenticate
        self._issue = issue
        self._clock = clock
        self._ttl = ttl
        self._longest = _LONGEST * stretch
        self._issued: OrderedDict[tuple[str, str, str, str], tuple[float, str]] = OrderedDict()

    async def authenticate(self, token: str, seconds: float, metadata: Metadata) -> AuthenticateSessionResponse:
        """The session, and its tenant, that lives as `token` says. `seconds` is all the time that the request has.

        Raises SESSION_INVALID, DEADLINE_EXCEEDED when it was the request that had no more time, and UNAVAILABLE
        (SESSIONS_UNAVAILABLE) when nobody can tell: never UNAUTHENTICATED for that.
        """
        if len(token) > MOST_BYTES:
            raise invalid()
        try:
            request = AuthenticateSessionRequest(token=token).SerializeToString()
        except ValueError:  # half a surrogate pair, which JSON can name and UTF-8 cannot
            raise invalid() from None
        try:
            return AuthenticateSessionResponse.FromString(
                await self._authenticate(request, min(seconds, self._longest), metadata)
            )
        except DecodeError:
            raise internal() from None
        except ApiError as error:
            if error.code in _REFUSED:
                raise invalid() from None
            if error.code is Code.DEADLINE_EXCEEDED and seconds <= self._longest:
                raise deadline_exceeded() from None
            raise _unavailable(error.retry_after) from None

    async def exchange(self, token: str, seconds: float, metadata: Metadata) -> str:
        """The `authorization` of a caller token for the session. Raises as `authenticate` does."""
        answer = await self.authenticate(token, seconds, metadata)
        session = answer.session
        # A session lends what it has and no more; a scope that this release does not know opens nothing.
        scopes = " ".join(scope for scope in session.scopes if scope in _KNOWN)
        key = (answer.tenant, session.session_id, session.user_id, scopes)
        now = self._clock.monotonic()
        issued = self._issued.get(key)
        if issued is None or now >= issued[0]:
            left = session.expire_time.seconds - self._clock.now().timestamp()
            ttl = min(self._ttl, max(left, _LEAST))
            grant = Grant(answer.tenant, session.user_id, tuple(scopes.split()), ttl, session.session_id)
            issued = self._issued[key] = now + ttl / 2, f"Bearer {self._issue(grant)}"
            if len(self._issued) > _TOKENS:
                self._issued.popitem(last=False)
        self._issued.move_to_end(key)
        return issued[1]

    def __len__(self) -> int:
        """How many caller tokens are kept."""
        return len(self._issued)


def _unavailable(retry_after: float | None) -> ApiError:
    message = "Whose the session token is cannot be told at the moment."
    return ApiError(Code.UNAVAILABLE, "SESSIONS_UNAVAILABLE", message, retry_after=retry_after or _RETRY_AFTER)
