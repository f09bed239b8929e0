"""A thousand readers of events, of some tenants, through two gateways, while publishers publish and processes are killed.

`python -m tests.integration.events.soak [--subscribers 1000] [--seconds 120] [--tenants 4] [--seed N]`. Says what
was published and delivered, and ends with 1 if anything was lost, doubled or out of order without an announced gap.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from launcher.targets import GATEWAY
from tests.support.continuity import Verdict
from tests.support.eventually import eventually
from tests.support.platform import Platform, new_platform, ready
from tests.support.publishers import Tenant, tenant
from tests.support.valkey import Valkey, new_valkey

SETTINGS = {
    "BAS_GATEWAY_STREAM_RETRY": "1s",
    "BAS_GATEWAY_STREAM_HEARTBEAT": "2s",
    "BAS_BREAKER_HALF_OPEN_AFTER": "1s",  # what is being tried is what happens in an outage, not its length
}
FILTERS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("", lambda _: True),
    ("?types=order.*", lambda kind: kind.startswith("order.")),
    ("?types=door.opened&types=order.sent", lambda kind: kind in {"door.opened", "order.sent"}),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much, for how many seconds. `losses`: the log is emptied once, too."""

    subscribers: int = 1000
    tenants: int = 4
    seconds: float = 120.0
    pause: float = 4.0
    """Seconds between two disturbances."""
    every: float = 0.1
    """Seconds between two publications of a publisher; each tenant has two publishers."""
    losses: bool = True
    seed: int = 1


@dataclass
class Outcome:
    """`refusals`: publications that were asked for again, as they were refused or nobody answered."""

    verdict: Verdict = field(default_factory=Verdict)
    stored: int = 0
    refusals: int = 0
    connections: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        found = self.verdict
        return (
            f"{self.stored} events stored ({self.refusals} publications asked for again), {found.delivered} deliveries, "
            f"{self.connections} connections, {dict(self.faults)} in {self.seconds:.0f} s: {found.lost} lost, "
            f"{found.duplicated} duplicated, {found.disordered} out of order, {found.unannounced} changes unannounced, "
            f"{found.contradicted} contradicted, {found.unwanted} unwanted; {found.gaps} gaps announced"
        )


class Gateway:
    """A second one beside that of `bas up`, as a load balancer would have it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._port = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        environ = {**self._platform.environ, **self._platform.addresses()}
        if not self._port:
            self._port = _any_port()
        environ["BAS_GATEWAY_PORT"] = self._port
        self._spawn(environ)
        await ready(self.address)

    def _spawn(self, environ: Mapping[str, str]) -> None:
        with (self._platform.folder / "gateway2.err").open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "launcher.main", "serve", GATEWAY],
                cwd=self._platform.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
            )

    async def stop(self, signum: int = signal.SIGTERM) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signum)
            await eventually(lambda: process.poll() is not None, "the end of the gateway", within=60.0)


class Soak:
    """One run."""

    def __init__(self, plan: Plan, platform: Platform, other: Gateway, valkey: Valkey) -> None:
        self._plan = plan
        self._platform = platform
        self._other = other
        self._valkey = valkey
        self._random = random.Random(plan.seed)
        self._tenants: list[Tenant] = []
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            for number in range(self._plan.tenants):
                one = tenant(self._platform, f"soak{number}")
                stack.push_async_callback(one.close)
                self._tenants.append(one)
            await self._open()
            async with asyncio.TaskGroup() as publishing:
                tasks = [publishing.create_task(self._publish(one)) for one in self._tenants for _ in range(2)]
                await self._disturb(time.monotonic() + self._plan.seconds)
                for task in tasks:
                    task.cancel()
            async with asyncio.TaskGroup() as telling:
                for one in self._tenants:
                    telling.create_task(one.told())
            for one in self._tenants:
                self._count(one)
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _count(self, one: Tenant) -> None:
        self.outcome.verdict += one.verdict()
        self.outcome.stored += len(one.log)
        self.outcome.refusals += one.refusals
        self.outcome.connections += sum(browser.connections for browser in one.browsers)

    async def _open(self) -> None:
        addresses = [self._platform.gateway, self._other.address]
        for number in range(self._plan.subscribers):
            one = self._tenants[number % len(self._tenants)]
            query, wants = FILTERS[number % len(FILTERS)]
            one.open(addresses, query, wants=wants, turn=number)
            if number % 50 == 49:
                await asyncio.sleep(0.05)
        for one in self._tenants:
            await one.listening()

    async def _publish(self, one: Tenant) -> None:
        while True:
            await one.publish(self._random.randint(1, 5))
            await asyncio.sleep(self._plan.every * 2 * self._random.random())

    async def _disturb(self, until: float) -> None:
        """Each kind in turn, from the first on, so that a short run has had all of them, and then by chance."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "events killed": self._kill_events,
            "gateway stopped": self._stop_gateway,
            "other gateway killed": self._kill_other,
            "connections cut": self._cut,
        }
        if self._plan.losses:
            kinds["log emptied"] = self._empty
        turns = list(kinds)
        while time.monotonic() < until or turns:
            kind = turns.pop(0) if turns else self._random.choice(list(kinds))
            if kind == "log emptied" and self.outcome.faults[kind]:
                kind = "connections cut"
            self.outcome.faults[kind] += 1
            await kinds[kind]()
            await asyncio.sleep(self._plan.pause * (0.5 + self._random.random()))

    async def _kill_events(self) -> None:
        await self._end("events", signal.SIGKILL if self._random.random() < 0.7 else signal.SIGTERM)

    async def _stop_gateway(self) -> None:
        await self._end(GATEWAY, signal.SIGTERM)

    async def _end(self, part: str, signum: int) -> None:
        pid = self._platform.parts()[part]
        os.kill(pid, signum)
        await eventually(lambda: self._platform.parts().get(part, pid) != pid, f"another {part}", within=120.0)
        await ready(self._platform.gateway)

    async def _kill_other(self) -> None:
        await self._other.stop(signal.SIGKILL if self._random.random() < 0.5 else signal.SIGTERM)
        await self._other.start()

    async def _cut(self) -> None:
        for one in self._tenants:
            for browser in self._random.sample(one.browsers, len(one.browsers) // 3):
                browser.cut()

    async def _empty(self) -> None:
        self._valkey.command("FLUSHALL")


@asynccontextmanager
async def gateways(platform: Platform) -> AsyncIterator[Gateway]:
    other = Gateway(platform)
    try:
        await other.start()
        yield other
    finally:
        await other.stop()


async def soak(plan: Plan) -> Outcome:
    """On a platform of its own."""
    async with new_valkey("everysec") as valkey, new_platform(BAS_REDIS_URL=valkey.url, **SETTINGS) as platform:
        await platform.start()
        async with gateways(platform) as other:
            return await Soak(plan, platform, other, valkey).run()


def _any_port() -> str:
    """One that stays free while its gateway is away: below those that a system gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)


def _arguments() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return Plan(given.subscribers, given.tenants, given.seconds, seed=given.seed)


def main() -> int:
    outcome = asyncio.run(soak(_arguments()))
    sys.stdout.write(f"{outcome}\n")
    return 1 if outcome.verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
