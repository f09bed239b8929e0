"""One small HTTP GET, for the probes of our own processes: the supervisor imports neither grpc nor an HTTP client."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def reachable(host: str) -> str:
    """The address at which this machine reaches what listens on `host` (a wildcard is not one to connect to)."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


async def get(host: str, port: int, path: str, *, within: float) -> Answer | None:
    """The answer, or None when there was none within `within` seconds."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(reachable(host), port)
            try:
                # HTTP/1.0: the body ends with the connection, in no chunks.
                writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                whole = await reader.read(_LONGEST)
                while not reader.at_eof() and len(whole) < _LONGEST:
                    whole += await reader.read(_LONGEST)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return None
    head, _, body = whole.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 - "HTTP/1.0 200 …"
        return None
    return Answer(int(words[1]), body)
