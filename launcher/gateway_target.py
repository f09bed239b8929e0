"""The gateway as a part of a process: a channel to each service of this release, and the HTTP server."""

import logging
import random
from typing import Final

from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.resilience.lag import LoopLag
from chassis.resilience.shedding import Shedder
from gateway.module import build
from gateway.server import GatewayServer
from gateway.upstream import ServiceUpstream
from launcher.gateway_refusals import GatewayRefusals
from launcher.probe_credential import ProbeCredential
from launcher.process import Process
from launcher.targets import GATEWAY, address_of, deployed

_LOG: Final = logging.getLogger("bas.gateway")


class GatewayTarget:
    """A component. `start` raises ConfigError for a port that is taken."""

    name = GATEWAY

    def __init__(self, process: Process) -> None:
        self._process = process
        self._server: GatewayServer | None = None
        gateway = process.config.gateway
        self._load = Shedder(process.config.shed, gateway.max_connections, process.metrics, random.random)
        self._lag = LoopLag(self._load.sample)
        self._refusals = GatewayRefusals(process, self._lag.late_since)

    async def start(self) -> None:
        process = self._process
        self._lag.start()
        self._server = server = GatewayServer(process.config.gateway)
        if process.keys.signing is None:
            _LOG.warning("session tokens are not accepted: the key file that BAS_AUTH_KEYS names has no private key")
        credential = ProbeCredential(process.keys, process.config.auth, process.clock)
        gateway = build(
            process.config,
            clock=process.clock,
            verifier=process.verifier(),
            metrics=process.metrics,
            upstreams={name: ServiceUpstream(self._client(name), credential) for name in deployed(process.config)},
            random_bytes=process.random_bytes,
            issue=self._issue if process.keys.signing is not None else None,
            load=self._load,
            refusals=self._refusals.refusals,
        )
        await server.start(gateway)
        self._refusals.start()

    def _issue(self, grant: Grant) -> str:
        process = self._process
        return mint(process.keys, process.config.auth, grant, process.clock.now())

    def _client(self, service: str) -> Client:
        process = self._process
        return Client(
            address_of(process.config, service),
            config=process.config.grpc,
            deadline=process.config.deadline,
            metrics=process.metrics,
            clock=process.clock,
            random=random.random,
            retry=process.config.retry,
            guard=process.breakers(service),
            late=self._lag.late_since,
        )

    async def stop(self) -> None:
        self._lag.stop()
        if self._server is not None:
            await self._server.stop()
        await self._refusals.stop()
