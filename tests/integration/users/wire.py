"""Real servers behind the real chain, and the way from one to another."""

import os
from contextlib import AsyncExitStack

from chassis.api.validation import compile_validator
from chassis.auth import tokens
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Grpc, Seconds
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.module import ServiceModule
from chassis.peers import ServicePeers
from chassis.server import GrpcServer
from chassis.telemetry.metrics import Metrics
from tests.support import patience


async def serve(running: AsyncExitStack, module: ServiceModule, held: KeySet, metrics: Metrics) -> GrpcServer:
    """A server of that module, which ends with `running`."""
    clock = SystemClock()
    gate = Gate(Verifier(held, Auth(), clock), clock, patience.DEADLINE, os.urandom)
    chain = ServerChain(gate, metrics, compile_validator)
    config = Grpc(drain=Seconds(0))
    server = GrpcServer([module], chain, config, host="127.0.0.1", port=0, setting="BAS_USERS_PORT")
    await server.start()
    running.push_async_callback(server.stop)
    server.health.set_all(SERVING)
    return server


def peers_to(running: AsyncExitStack, sessions: GrpcServer, held: KeySet, metrics: Metrics) -> ServicePeers:
    """The peers of the users service: the sessions service, and no other."""
    peers = ServicePeers(
        "users",
        lambda service: {"sessions": f"127.0.0.1:{sessions.port}"}[service],
        keys=held,
        config=Config(deadline=patience.DEADLINE),
        metrics=metrics,
        clock=SystemClock(),
        random=lambda: 0.5,
    )
    running.push_async_callback(peers.close)
    return peers


def bearer(held: KeySet, tenant: str, *scopes: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a caller token."""
    token = tokens.mint(held, Auth(), Grant(tenant, "me", scopes or ("users:write",)), SystemClock().now())
    return (("authorization", f"Bearer {token}"),)
