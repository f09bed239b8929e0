"""What gRPC puts into HTTP/2: the head of a call, the frame of a message, the status at its end.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md of the gRPC project).
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Final
from urllib.parse import unquote_to_bytes

from chassis.http2.hpack import Header, integer, literal

_POST_HTTP: Final = b"\x83\x86"
"""`:method POST` and `:scheme http` of HPACK's static table."""
_PATH, _AUTHORITY = 4, 1
_LONGEST_TIMEOUT: Final = 99_999_999
_OF_HTTP: Final[Mapping[str, int]] = {
    "400": 13,
    "401": 16,
    "403": 7,
    "404": 12,
    "429": 14,
    "502": 14,
    "503": 14,
    "504": 14,
}
_OF_RESET: Final[Mapping[int, int]] = {8: 1, 11: 8, 12: 7}
_REFUSED: Final = 7


class Failure(Exception):
    """A call that ended otherwise than well: gRPC status number, its message, and the trailers."""

    def __init__(self, status: int, message: str = "", trailers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.trailers: Mapping[str, str] = trailers or {}


class NotSent(Exception):
    """The peer has not begun the call and never will: it may be sent again, elsewhere."""


class Head:
    """The header blocks of one method's calls; all that is the same in each is encoded once."""

    __slots__ = ("_fixed", "_names", "_timeouts")

    def __init__(self, path: str, authority: str) -> None:
        raw, host = path.encode("ascii"), authority.encode("ascii")
        self._fixed = b"".join(
            (
                _POST_HTTP,
                integer(_PATH, 4) + integer(len(raw), 7) + raw,
                integer(_AUTHORITY, 4) + integer(len(host), 7) + host,
                literal(b"te", b"trailers"),
                literal(b"content-type", b"application/grpc"),
                literal(b"user-agent", b"bas"),
            )
        )
        self._names: dict[str, bytes] = {}
        self._timeouts: dict[float, bytes] = {}

    def block(self, seconds: float, metadata: Iterable[tuple[str, str]]) -> bytes:
        """Names are lower-case ASCII, few, and none of them is binary; values hold no control characters."""
        timeout = self._timeouts.get(seconds)
        if timeout is None:
            milliseconds = min(max(1, ceil(seconds * 1000)), _LONGEST_TIMEOUT)
            timeout = self._fixed + literal(b"grpc-timeout", b"%dm" % milliseconds)
            if len(self._timeouts) < 16:  # noqa: PLR2004 - callers choose their deadlines; most do not
                self._timeouts[seconds] = timeout
        parts = [timeout]
        for name, text in metadata:
            known = self._names.get(name)
            if known is None:
                known = (b"\x10" if name == "authorization" else b"\x00") + integer(len(name), 7) + name.encode("ascii")
                if len(self._names) < 16:  # noqa: PLR2004
                    self._names[name] = known
            value = text.encode("latin-1")
            parts += (known, bytes((len(value),)) if len(value) < 127 else integer(len(value), 7), value)  # noqa: PLR2004
        return b"".join(parts)


def unframe(trailers: Mapping[str, str], chunks: Sequence[bytes]) -> bytes:
    """The message of an answer. Raises Failure for a status that is not OK, and for what is no answer."""
    status = trailers.get("grpc-status", "")
    if status != "0":
        number = int(status) if status.isdecimal() and len(status) < 4 else 2  # noqa: PLR2004
        message = unquote_to_bytes(trailers.get("grpc-message", "")).decode("utf-8", "replace")
        raise Failure(number, message, trailers)
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5]) != len(data) - 5:  # noqa: PLR2004 - uncompressed, whole
        raise Failure(13, "The answer is not one message.", trailers)
    return data[5:]


def trailers_of(headers: Iterable[Header]) -> Mapping[str, str]:
    """The last block of a call, by name; of an answer without a gRPC status, the one that its HTTP status means."""
    trailers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if "grpc-status" not in trailers and ":status" in trailers:
        trailers["grpc-status"] = str(_OF_HTTP.get(trailers[":status"], 2))
    return trailers


def http_failure(headers: Iterable[Header]) -> Failure | None:
    """What the first block of an answer says, None for the beginning of one."""
    status = dict(headers).get(b":status", b"").decode("latin-1")
    return None if status == "200" else Failure(_OF_HTTP.get(status, 2))


def reset_failure(code: int) -> Exception:
    """What a stream's reset means."""
    return NotSent() if code == _REFUSED else Failure(_OF_RESET.get(code, 13), "The service broke the call off.")
