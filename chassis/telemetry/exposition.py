"""The metrics port of a process: `GET /metrics` for Prometheus and `GET /healthz`, over the least HTTP that serves both."""

import asyncio
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from chassis.listen import cannot_listen, check_port

_HEAD_BYTES: Final = 8 * 1024
_SECONDS: Final = 5.0
"""For a whole exchange: who is slower is cut off."""
_TEXT: Final = "text/plain; charset=utf-8"


class Exposition:
    """A component of the process. One answer a connection; `port` is the port it listens on once started."""

    name = "metrics"

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int, setting: str) -> None:
        check_port(host, port, setting)
        self._registry = registry
        self._address = (host, port, setting)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.port = port

    async def start(self) -> None:
        """Listen. Raises PortTaken or CannotListen."""
        host, port, setting = self._address
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES)
        except OSError as problem:
            raise cannot_listen(host, port, setting, problem) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is slow, gone, or does not speak HTTP
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path not in (b"/metrics", b"/healthz"):
            return _response("404 Not Found", _TEXT, b"/metrics and /healthz are here\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", _TEXT, b"", "Allow: GET, HEAD\r\n")
        if path == b"/healthz":
            kind, body = _TEXT, b"ok\n"
        else:
            kind, body = CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return _response("200 OK", kind, body, with_body=method == b"GET")


def _response(status: str, kind: str, body: bytes, more: str = "", *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (body if with_body else b"")
