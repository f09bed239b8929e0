"""The gateway's HTTP server: uvicorn with uvloop and httptools, bounded, as something that starts and stops."""

import asyncio
import socket
from functools import partial
from typing import Final, cast

import uvicorn

from chassis.config import Gateway as GatewayConfig
from chassis.listen import check_port
from gateway.module import Gateway
from gateway.protocol import BoundedProtocol

_BACKLOG: Final = 1024
_KEEP_ALIVE: Final = 75
_SETTING: Final = "BAS_GATEWAY_PORT"


class GatewayServer:
    """Binds when it is made, so that a taken port is known before anything else is started."""

    def __init__(self, config: GatewayConfig) -> None:
        """Raises PortTaken or CannotListen (ConfigError), naming the setting to change."""
        self._config = config
        self._socket = _listen(config.host, config.port)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._gateway: Gateway | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: the configured one, or a free one for 0."""
        port: int = self._socket.getsockname()[1]
        return port

    async def start(self, gateway: Gateway) -> None:
        """Serve `gateway` in the running loop; returns once connections are accepted."""
        self._gateway = gateway
        self._server = _Server(
            uvicorn.Config(
                gateway.app,
                http=cast(type[asyncio.Protocol], partial(BoundedProtocol, bounds=self._config)),
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=max(1, round(self._config.drain)),
            )
        )
        gateway.readiness.start()
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="gateway-http")
        started = asyncio.create_task(self._server.running.wait())
        await asyncio.wait({started, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Accept no more, let the requests in progress end within the drain time, then close the upstreams."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            if self._gateway is not None:
                await self._gateway.streams.drain(self._config.drain)
            await self._serving
        self._socket.close()
        if self._gateway is not None:
            await self._gateway.readiness.stop()
            await self._gateway.upstreams.close()

    async def wait(self) -> None:
        """Return when serving has ended; raises what ended it."""
        if self._serving is not None:
            await asyncio.shield(self._serving)


class _Server(uvicorn.Server):
    """Uvicorn's server without its signal handlers (the process has its own), telling when it runs."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.running = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.running.set()


def _listen(host: str, port: int) -> socket.socket:
    check_port(host, port, _SETTING)
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
