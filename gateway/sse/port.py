"""What the gateway hands to whoever serves the event streams of an RPC in its place, and what it asks of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from chassis.context import Caller
from gateway.problems import Headers
from gateway.request import Receive, Send
from gateway.upstream import Metadata


@dataclass(frozen=True, slots=True)
class Credential:
    """What a stream was opened with. `authorization` is the caller token that goes upstream (`Bearer …`): the client's
    own, or a short-lived one of the session that `session_token` belongs to, which is "" without a session.

    `caller.expires_at` is the end of the caller token: the end of the right to listen where there is no session, the
    time to ask again where there is one.
    """

    caller: Caller
    authorization: str
    session_token: str = ""


Renew = Callable[[float], Awaitable[Credential]]
"""(seconds) → the credential as it is now: verified anew, or exchanged anew for its session. Raises UNAUTHENTICATED
(TOKEN_EXPIRED, SESSION_INVALID, …) when it is good no more, UNAVAILABLE or DEADLINE_EXCEEDED when nobody can tell."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A GET for an event stream whose sender is known and whose parameters are well-formed. Nothing is answered yet.

    `message` is the request of the RPC as bytes. Its `cursor` is where the client wants to go on: the `Last-Event-ID`
    header if it sent one, otherwise the query parameter `last_event_id`, otherwise `cursor`. The credential has the scope
    that the RPC asks for; the values of the message nobody has looked at yet but for their types. `metadata` is what goes
    upstream with a call for this request, credential and request id included. `headers` belong in the head of the answer
    beside those of a stream: X-Request-Id, API-Version, CORS.
    """

    message: bytes
    credential: Credential
    renew: Renew
    metadata: Metadata
    headers: Headers
    send: Send
    receive: Receive


class Transport(Protocol):
    """A client's connection, once the head of its answer is sent. Nothing here waits."""

    @property
    def closing(self) -> bool:
        """Whether it is closed, or about to be, by either side: what is written goes nowhere."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece of the body, after all that waits already."""
        ...

    def get_write_buffer_size(self) -> int:
        """How many bytes wait because the client does not read."""
        ...

    def close(self) -> None:
        """End the answer, after all that waits."""
        ...

    def abort(self) -> None:
        """Drop the connection and what waits."""
        ...


class StreamHandler(Protocol):
    """Serves the event streams (`Accept: text/event-stream`) of one RPC, for all clients of this process."""

    async def serve(self, opening: Opening) -> None:
        """Answer; returns when the stream is over or the client is gone. An ApiError, raised before the head is sent, is
        answered with its status, at which a browser's EventSource gives up for good: so only for what will not be better
        the next time (INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED). HEAD never comes here."""
        ...

    async def drain(self, seconds: float) -> None:
        """The process stops: end all streams, spread over at most `seconds`, and take no more. Returns when they have
        ended. Called once."""
        ...
