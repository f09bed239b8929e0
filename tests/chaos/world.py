"""The platform under test: real processes, kept running, on a store that replicas share, two Valkeys, and ways between
them that can be harmed one by one.

The proxies are this process's: what it can reach, it can slow down. Ports are taken from below the range from which the
kernel gives them out, so that the port of a process that is down goes to nobody else.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final, Literal

from chassis.auth import tokens
from chassis.auth.keys import KeySet, load_or_create
from chassis.clock import SystemClock
from chassis.config import SETTINGS, Auth, load
from launcher.backoff import Backoff
from launcher.child import Child
from launcher.supervisor import PartError, Supervisor
from tests.faults.proxy import Proxy
from tests.support.eventually import eventually
from tests.support.stores import EMULATOR, ROOT, stand_in
from tests.support.valkey import Valkey

Store = Literal["firestore", "sqlite"]

GATEWAY: Final = "gateway"
EVENTS: Final = "events"
FLOODED: Final = "flood"
"""The tenant that asks for more than it may: `FLOOD_RATE` a second, `FLOOD_BURST` at once."""
FLOOD_RATE: Final = 5
FLOOD_BURST: Final = 5
PATIENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BAS_DEADLINE_STRETCH": "20",
        "BAS_REDIS_OP_TIMEOUT": "500ms",
        "BAS_REDIS_CONNECT_TIMEOUT": "5s",
        "BAS_STORE_READ_TIMEOUT": "3s",
        "BAS_STORE_WRITE_TIMEOUT": "3s",
    }
)
"""Long enough for a busy machine to be slow, and not to be late: what is late has failed, and shows nothing else."""
_PORTS: Final = (20_000, 32_000)
_START_BOUND: Final = 120.0
_PLACE: Final = "bas-chaos/(default)"


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes of each, on which store. A file has one process a service."""

    store: Store = "firestore"
    devices: int = 2
    sessions: int = 2
    bug: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.store == "sqlite" and (self.devices, self.sessions) != (1, 1):
            raise ValueError("an SQLite file belongs to one process")

    @property
    def replicas(self) -> dict[str, str]:
        """Process name → what it serves; the first of a service is the one that the gateway asks."""
        names = {f"devices-{number + 1}": "devices" for number in range(self.devices)}
        names |= {f"sessions-{number + 1}": "sessions" for number in range(self.sessions)}
        return names | {EVENTS: EVENTS, GATEWAY: GATEWAY}


class Served(Child):
    """`bas serve` by another name, its log in a file, and with a hand inside."""

    def __init__(self, name: str, target: str, environ: Mapping[str, str], folder: Path) -> None:
        super().__init__(target, {**environ, "CHAOS_ORDERS": str(folder / f"{name}.orders")})
        self._called = name
        self.log = folder / f"{name}.log"
        self._orders = folder / f"{name}.orders"
        self.starts = 0

    @property
    def name(self) -> str:
        return self._called

    async def start(self) -> None:
        try:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.chaos.entry", "serve", "--supervised", self._name),
                    env=self._environ,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as problem:
            raise PartError(str(problem)) from None
        self.starts += 1

    def signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(signum)

    def order(self, **orders: object) -> None:
        self._orders.write_text(json.dumps(orders))
        self.signal(signal.SIGUSR1)


class World:
    """What runs, by name. `cache_ways` and `store_ways` lead each process to what it stands on; `log_way` the events
    service to its log; `service_ways` whoever calls a service to its first replica."""

    def __init__(self, shape: Shape, folder: Path, seed: int) -> None:
        self.shape = shape
        self.folder = folder
        self.cache = Valkey(_made(folder / "cache"))
        self.log = Valkey(_made(folder / "log"), "everysec")
        self.parts: dict[str, Served] = {}
        self.cache_ways: dict[str, Proxy] = {}
        self.store_ways: dict[str, Proxy] = {}
        self.service_ways: dict[str, Proxy] = {}
        self.log_way = Proxy(str(folder / "log.way"), str(folder / "log" / "valkey.sock"))
        self.ports = _ports(2 * len(shape.replicas), Random(seed ^ os.getpid()))
        self.store_address = ""
        self._supervisor = Supervisor(
            clock=SystemClock(),
            backoff=Backoff(random=random.random, first=0.2, longest=1.0, settled=5.0),
            say=self._said,
        )
        self._keys: KeySet | None = None
        self.restarts: list[str] = []

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.port(GATEWAY)}"

    def port(self, name: str) -> int:
        return self.ports[list(self.shape.replicas).index(name)]

    def metrics_port(self, name: str) -> int:
        at = list(self.shape.replicas).index(name)
        return self.ports[at] if name == GATEWAY else self.ports[len(self.shape.replicas) + at]

    def replicas(self, service: str) -> list[str]:
        return [name for name, target in self.shape.replicas.items() if target == service]

    def token(self, tenant: str) -> str:
        """Good for all of the run, and, as far as its makers' clock can tell, made a while ago: clocks will step."""
        keys = self._keys = self._keys or load_or_create(self.folder / "keys.json", os.urandom)
        now = SystemClock().now().replace(microsecond=0)
        grant = tokens.Grant(tenant, "chaos", tokens.ALL_SCOPES, 6 * 3600.0)
        return tokens.mint(keys, Auth(), grant, now.fromtimestamp(now.timestamp() - 600, now.tzinfo))

    def ways(self) -> list[Proxy]:
        found = [*self.cache_ways.values(), *self.store_ways.values(), *self.service_ways.values(), self.log_way]
        return list(dict.fromkeys(found))

    async def answers(self) -> bool:
        """Whether the gateway and all that is behind it are ready, and everybody listens."""
        if not all(_listens(self.port(name)) for name in self.parts):
            return False
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port(GATEWAY))
            with closing(writer):
                async with asyncio.timeout(10):
                    writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    answer = await reader.read()
        except (OSError, TimeoutError):
            return False
        return answer.startswith(b"HTTP/1.1 200")

    async def start(self, stack: AsyncExitStack) -> None:
        await self.cache.start()
        stack.push_async_callback(self.cache.stop)
        await self.log.start()
        stack.push_async_callback(self.log.stop)
        self.keep_log()
        if self.shape.store == "firestore":
            self.store_address = stack.enter_context(stand_in(place=_PLACE))
        load_or_create(self.folder / "keys.json", os.urandom)
        (self.folder / "limits.toml").write_text(f"[tenants.{FLOODED}]\nrate = {FLOOD_RATE}\nburst = {FLOOD_BURST}\n")
        for name, target in self.shape.replicas.items():
            self.cache_ways[name] = Proxy(str(self.folder / f"{name}.way"), str(self.folder / "cache" / "valkey.sock"))
            if self.store_address:
                self.store_ways[name] = Proxy("127.0.0.1:0", self.store_address)
            if target != GATEWAY and target not in self.service_ways:
                self.service_ways[target] = Proxy("127.0.0.1:0", f"127.0.0.1:{self.port(name)}")
        for way in self.ways():
            await way.start()
            stack.push_async_callback(way.stop)
        stack.push_async_callback(self._stop)
        for name, target in self.shape.replicas.items():
            part = self.parts[name] = Served(name, target, self._environ(name), self.folder)
            await self._supervisor.add(part)
        await eventually(self.answers, f"a platform that is ready: see {self.folder}", within=_START_BOUND, every=0.1)

    def keep_log(self) -> None:
        """What the log has answered is on disk: kill -9 of it loses nothing."""
        self.log.command("CONFIG", "SET", "appendfsync", "always")

    def heal(self) -> None:
        """Nothing is held up any more; what was stopped goes on."""
        for way in self.ways():
            way.release()
            way.delay, way.rate = 0.0, None
        for part in self.parts.values():
            part.signal(signal.SIGCONT)

    async def _stop(self) -> None:
        self.heal()
        await self._supervisor.stop(list(self.parts), grace=5.0)

    def _said(self, message: str) -> None:
        self.restarts.append(message)

    def _environ(self, name: str) -> dict[str, str]:
        environ = {each: text for each, text in os.environ.items() if each not in SETTINGS}
        environ |= {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}",
            "CHAOS_BUG": self.shape.bug,
            "BAS_DATA_DIR": str(self.folder),
            "BAS_REDIS_URL": f"unix://{self.cache_ways[name].address}?db=0",
            "BAS_EVENTS_LOG_URL": f"unix://{self.log_way.address}?db=0",
            "BAS_EVENTS_RETENTION_COUNT": "10000000",
            "BAS_EVENTS_RETENTION_BYTES": str(2**33),
            "BAS_GATEWAY_PORT": str(self.port(GATEWAY)),
            "BAS_GATEWAY_SERVICES": "sessions,devices,events",
            "BAS_LIMITS_POLICIES": str(self.folder / "limits.toml"),
            "BAS_LIMITS_REPLICAS": "2",
            "BAS_LOG_FORMAT": "json",
            "BAS_LOG_LEVEL": "debug",
            "BAS_REDIS_OP_TIMEOUT": "50ms",
            "BAS_CACHE_DEVICE_TTL": "3s",
            "BAS_CACHE_LIST_TTL": "3s",
            "BAS_CACHE_LEASE_TTL": "2s",
        }
        target = self.shape.replicas[name]
        for service, way in self.service_ways.items():
            prefix = f"BAS_{service.upper()}"
            own = name if service == target else self.replicas(service)[0]
            environ |= {
                f"{prefix}_PORT": str(self.port(own)),
                f"{prefix}_METRICS_PORT": str(self.metrics_port(own)),
                f"{prefix}_ADDRESS": way.address,
            }
        if self.store_address:
            environ |= {"BAS_STORE_URL": f"firestore://{_PLACE}", EMULATOR: self.store_ways[name].address}
        environ |= self.shape.settings
        load(environ)
        return environ


@asynccontextmanager
async def world(shape: Shape, folder: Path, seed: int) -> AsyncIterator[World]:
    """A platform that runs, and of which nothing is left afterwards but its logs in `folder` (a short path)."""
    made = World(shape, folder, seed)
    async with AsyncExitStack() as stack:
        await made.start(stack)
        yield made


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _ports(number: int, chance: Random) -> list[int]:
    found: list[int] = []
    while len(found) < number:
        port = chance.randrange(*_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
