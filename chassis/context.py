"""Who is calling, until when, and under which request id: set once per call by the server chain, read anywhere below."""

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified credential. `scopes` holds what was granted, expanded (`devices:admin` includes write and read).

    `expires_at` is seconds since the epoch; `session_id` is empty unless the caller came with a session.
    """

    tenant: str
    subject: str
    scopes: frozenset[str]
    expires_at: float
    session_id: str = ""

    def may(self, scope: str) -> bool:
        return scope in self.scopes


@dataclass(frozen=True, slots=True)
class Call:
    """One call in progress. `deadline` is on the clock's monotonic scale, None only for streams without one. `repeated`:
    the tier above sends it again, so what is done for it is not tried twice here."""

    method: str
    request_id: str
    deadline: float | None = None
    caller: Caller | None = None
    repeated: bool = False


_CALL: ContextVar[Call | None] = ContextVar("bas_call", default=None)


def enter(call: Call) -> Token[Call | None]:
    """Make `call` the current one in this task and the tasks it starts."""
    return _CALL.set(call)


def leave(token: Token[Call | None]) -> None:
    _CALL.reset(token)


def current() -> Call | None:
    """The call in progress, or None in background work."""
    return _CALL.get()


def caller() -> Caller:
    """The verified caller. Raises LookupError where nothing was authenticated: a programming error, never an anonymous."""
    call = _CALL.get()
    if call is None or call.caller is None:
        raise LookupError("no authenticated caller in this context")
    return call.caller


def tenant() -> str:
    """The tenant of the credential, which is the only place a tenant comes from."""
    return caller().tenant
