"""`bas status`: health, breaker states and latencies of a running platform."""

import asyncio
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Final

import click

from chassis.clock import SystemClock
from chassis.config import Config, load
from launcher.failure import FAILED
from launcher.latency import Latency, gauges, latencies
from launcher.probe import get, reachable
from launcher.targets import GATEWAY, PRESENT, address_of, chosen, endpoint, key_path, metrics_port

_WITHIN: Final = 2.0
_BREAKER: Final = "bas_breaker_state"
_BREAKER_STATES: Final[Mapping[float, str]] = MappingProxyType({0.0: "closed", 1.0: "half-open", 2.0: "open"})

_OUTBOX: Final = ("pending", "oldest_seconds", "parked")


@dataclass(frozen=True, slots=True)
class Target:
    """What one target says of itself. `state` is SERVING when all is well, else why not."""

    address: str
    state: str
    healthy: bool
    breakers: dict[str, str] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)
    outbox: dict[str, float] = field(default_factory=dict)
    """Side effects: how many are `pending`, since when (`oldest_seconds`), and how many were `parked`."""


@click.command("status")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--here", is_flag=True, help="Only the targets that listen on this host; none is a failure, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, targets: tuple[str, ...], here: bool, as_json: bool) -> int:
    """Show the health of each target, its breakers, and the p95 and p99 of each operation since it started.

    Exit code 0 when all of them are healthy, 1 when not. Looks where the same settings would have put them.

    \b
    Example:
      bas status devices --json
    """
    config = load(os.environ)
    names = chosen(targets) or PRESENT
    if here:
        names = tuple(name for name in names if _listens(config, name))
    found = asyncio.run(_look(config, names))
    healthy = bool(found) and all(target.healthy for target in found.values())
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "targets": {n: asdict(t) for n, t in found.items()}}, indent=2))
    else:
        click.echo("\n".join(_lines(found)) or "Nothing listens here.")
        if not healthy:
            click.echo("Not healthy. Start it with `bas up`, or look at the logs of what is not SERVING.", err=True)
    return 0 if healthy else FAILED


async def _look(config: Config, names: Iterable[str]) -> dict[str, Target]:
    names = tuple(names)
    credential = _credential(config)
    looks = (_gateway(config) if name == GATEWAY else _service(config, name, credential) for name in names)
    return dict(zip(names, await asyncio.gather(*looks), strict=True))


async def _gateway(config: Config) -> Target:
    host, port = config.gateway.host, config.gateway.port
    ready, metrics = await asyncio.gather(
        get(host, port, "/readyz", within=_WITHIN), get(host, port, "/metrics", within=_WITHIN)
    )
    address = f"http://{reachable(host)}:{port}"
    if ready is None:
        return Target(address, "no answer", healthy=False)
    healthy = ready.status == 200  # noqa: PLR2004 - HTTP's OK
    state = "SERVING" if healthy else ready.body.decode("utf-8", "replace").strip()
    return _measured(address, state, healthy=healthy, exposition=metrics.body if metrics else b"")


async def _service(config: Config, name: str, credential: tuple[tuple[str, str], ...]) -> Target:
    from launcher.health import health  # noqa: PLC0415 - grpc is a tenth of a second that --help need not wait for

    section = endpoint(config, name)
    address = address_of(config, name)
    state, metrics = await asyncio.gather(
        health(address, config.grpc, credential=credential, within=_WITHIN),
        get(section.host, metrics_port(section), "/metrics", within=_WITHIN),
    )
    return _measured(address, state, healthy=state == "SERVING", exposition=metrics.body if metrics else b"")


def _measured(address: str, state: str, *, healthy: bool, exposition: bytes) -> Target:
    text = exposition.decode("utf-8", "replace")
    breakers = {name: _BREAKER_STATES.get(value, f"{value:g}") for name, value in gauges(text, _BREAKER).items()}
    outbox = {name: value for name in _OUTBOX for value in gauges(text, f"bas_outbox_{name}").values()}
    return Target(address, state, healthy, breakers, latencies(text), outbox)


def _credential(config: Config) -> tuple[tuple[str, str], ...]:
    if not key_path(config).exists():
        return ()
    from launcher import keys  # noqa: PLC0415 - as above
    from launcher.probe_credential import ProbeCredential  # noqa: PLC0415

    return ProbeCredential(keys.existing(config), config.auth, SystemClock())()


def _listens(config: Config, name: str) -> bool:
    section = config.gateway if name == GATEWAY else endpoint(config, name)
    try:
        socket.create_connection((reachable(section.host), section.port), timeout=_WITHIN).close()
    except OSError:
        return False
    return True


def _lines(found: Mapping[str, Target]) -> Iterable[str]:
    for name, target in found.items():
        yield f"{name:<9} {target.state:<12} {target.address}"
        for breaker, state in target.breakers.items():
            yield f"    breaker {breaker}: {state}"
        if any(target.outbox.values()):
            pending, oldest, parked = (target.outbox.get(name, 0.0) for name in _OUTBOX)
            yield f"    outbox: {pending:.0f} pending, the oldest for {oldest:.0f} s; {parked:.0f} parked"
        if target.latencies:
            yield f"    {'OPERATION':<52} {'COUNT':>9} {'P95':>9} {'P99':>9}"
        for row in target.latencies:
            yield f"    {row.operation:<52} {row.count:>9} {_time(row.p95):>9} {_time(row.p99):>9}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "> 10 s"
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"
