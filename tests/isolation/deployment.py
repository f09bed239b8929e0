"""Every service of the release behind its real chain and the real gateway, in this process, as two kinds of client meet
them: over gRPC, and over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import grpc
import httpx

from chassis.api.validation import compile_validator
from chassis.auth import keys
from chassis.auth.keys import KeySet
from chassis.auth.tokens import mint
from chassis.auth.verifier import Verifier
from chassis.cache.client import open_cache
from chassis.channel import Client
from chassis.clock import SystemClock
from chassis.config import Auth, Config, Events, Gateway, Grpc, Seconds
from chassis.health import SERVING
from chassis.interceptors.admission import Gate
from chassis.interceptors.server import ServerChain
from chassis.module import Parts, ServiceModule, ServiceSpec
from chassis.peers import ServicePeers
from chassis.server import GrpcServer
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from gateway.module import build as build_gateway
from gateway.server import GatewayServer
from gateway.upstream import ServiceUpstream
from launcher.targets import SERVICES
from tests.support import patience
from tests.support.eventually import eventually

T = TypeVar("T")


def specs() -> Mapping[str, ServiceSpec]:
    """The services that have an implementation, by name."""
    return {name: import_module(module).SPEC for name, module in SERVICES.items()}


class ShiftedClock(SystemClock):
    """The machine's clocks, and a calendar that tests turn forward."""

    __slots__ = ("ahead",)

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class WatchedStore:
    """A store that counts what it is asked."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.asked = 0

    async def get(self, key: Key) -> Document | None:
        self.asked += 1
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        self.asked += 1
        return await self._inner.get_many(keys)

    async def query(self, query: Query) -> list[Document]:
        self.asked += 1
        return await self._inner.query(query)

    async def count(self, query: Query) -> int:
        self.asked += 1
        return await self._inner.count(query)

    async def commit(self, writes: Sequence[Write]) -> Committed:
        self.asked += 1
        return await self._inner.commit(writes)

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Deployment:
    """`asked()` is how often any store was asked anything so far."""

    keys: KeySet
    auth: Auth
    clock: ShiftedClock
    stores: Sequence[WatchedStore]
    channels: Mapping[str, grpc.aio.Channel]
    http: httpx.AsyncClient

    def asked(self) -> int:
        return sum(store.asked for store in self.stores)


@dataclass(frozen=True, slots=True)
class Faults:
    """Where a bug may be put in: the store beneath a service, and the service itself."""

    store: Callable[[DocumentStore], DocumentStore] = lambda store: store
    module: Callable[[ServiceModule], ServiceModule] = lambda module: module


@asynccontextmanager
async def deployed(folder: Path, valkey_url: str, faults: Faults | None = None) -> AsyncIterator[Deployment]:
    faults = faults or Faults()
    held = keys.load_or_create(folder / "keys.json", os.urandom)
    async with AsyncExitStack() as running:
        building = _Building(running, folder, valkey_url, held, faults)
        for spec in specs().values():
            await building.start(spec)
        yield Deployment(
            held,
            Auth(),
            building.clock,
            building.stores,
            {name: await building.channel(name) for name in building.servers},
            await building.gateway(),
        )


async def ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=patience.CALL)


class _Building:
    """A deployment on its way; what is started ends with `running`, last first."""

    def __init__(self, running: AsyncExitStack, folder: Path, valkey_url: str, held: KeySet, faults: Faults) -> None:
        self._running = running
        self._folder = folder
        self._url = valkey_url
        self._held = held
        self._faults = faults
        self._config = Config(
            deadline=patience.DEADLINE,
            gateway=Gateway(port=0, stream_heartbeat=Seconds(0.15)),
            redis=patience.cache_at(valkey_url),
            events=Events(heartbeat=Seconds(0.15), shards=2, log_timeout=Seconds(10)),
        )
        self.clock = ShiftedClock()
        self.stores: list[WatchedStore] = []
        self.servers: dict[str, GrpcServer] = {}

    async def start(self, spec: ServiceSpec) -> None:
        real = SystemClock()
        opened = await SqliteStore.open(
            self._folder / f"{spec.name}.db", spec.schema, clock=real, budget=patience.STORE
        )
        self._running.push_async_callback(opened.close)
        store = WatchedStore(self._faults.store(opened))
        self.stores.append(store)
        cache = open_cache(patience.cache_at(self._url), Metrics(), clock=real)
        self._running.push_async_callback(cache.close)
        await asyncio.gather(cache.get("x"), return_exceptions=True)  # connected from here on
        peers = ServicePeers(
            spec.name,
            lambda name: f"127.0.0.1:{self.servers[name].port}",
            keys=self._held,
            config=self._config,
            metrics=Metrics(),
            clock=real,
            random=lambda: 0.5,
        )
        self._running.push_async_callback(peers.close)
        parts = Parts(self.clock, store, cache, Metrics(), os.urandom, self._held.secret, peers)
        module = self._faults.module(spec.build(self._config, parts))
        if module.close is not None:
            self._running.push_async_callback(module.close)
        if module.drain is not None:  # its streams do not end: they tell of what goes on meanwhile
            for each in module.background:
                self._running.push_async_callback(ended, asyncio.ensure_future(each.run()))
        gate = Gate(Verifier(self._held, Auth(), real), real, patience.DEADLINE, os.urandom)
        chain = ServerChain(gate, Metrics(), compile_validator)
        config = Grpc(drain=Seconds(0))
        server = GrpcServer([module], chain, config, host="127.0.0.1", port=0, setting=f"BAS_{spec.name.upper()}_PORT")
        await server.start()
        self._running.push_async_callback(server.stop)
        server.health.set_all(SERVING)
        self.servers[spec.name] = server

    async def channel(self, name: str) -> grpc.aio.Channel:
        address = f"127.0.0.1:{self.servers[name].port}"
        return await self._running.enter_async_context(grpc.aio.insecure_channel(address))

    async def gateway(self) -> httpx.AsyncClient:
        real = SystemClock()
        gateway = build_gateway(
            self._config,
            clock=real,
            verifier=Verifier(self._held, Auth(), real),
            metrics=Metrics(),
            upstreams={name: ServiceUpstream(self._client(server)) for name, server in self.servers.items()},
            random_bytes=os.urandom,
            issue=lambda grant: mint(self._held, Auth(), grant, real.now()),
        )
        server = GatewayServer(self._config.gateway)
        await server.start(gateway)
        self._running.push_async_callback(server.stop)
        await eventually(lambda: not gateway.readiness.waiting(), "the gateway reaches its services")
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=patience.CLIENT)
        return await self._running.enter_async_context(client)

    def _client(self, server: GrpcServer) -> Client:
        return Client(
            f"127.0.0.1:{server.port}",
            config=Grpc(),
            deadline=patience.DEADLINE,
            metrics=Metrics(),
            clock=SystemClock(),
            random=lambda: 0.5,
        )
