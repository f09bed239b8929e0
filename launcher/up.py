"""`bas up`: the whole platform on this machine, embedded. One process a target, a real Valkey, SQLite files.

Order of a start: settings, data folder and its lock, ports, keys; then Valkey; then all targets at once; then wait until
the gateway says that all it needs is ready. Order of a stop: gateway (it finishes what it has begun), services, Valkey.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from chassis.clock import Clock, SystemClock
from chassis.config import Config, load
from launcher import keys, preflight
from launcher.backoff import Backoff
from launcher.banner import banner
from launcher.child import Child
from launcher.failure import Failure, misuse
from launcher.probe import get
from launcher.supervisor import PartError, Supervisor
from launcher.targets import GATEWAY, PRESENT, SERVICES, addresses
from launcher.valkey_part import VALKEY, ValkeyPart

_START_BOUND: Final = 30.0
_POLL: Final = 0.03
# Together under 5 s, which is what a person at the keyboard was promised.
_GATEWAY_GRACE: Final = 2.5
_SERVICE_GRACE: Final = 1.5
_VALKEY_GRACE: Final = 0.7


@click.command("up")
def command() -> int:
    """Start the whole platform on this machine, wait until it is healthy, and keep it running.

    Settings come from BAS_ variables (see `bas config`); a port of 0 means any that is free. Ctrl-C or SIGTERM drains
    and stops it all within five seconds.

    \b
    Example:
      BAS_GATEWAY_PORT=9090 BAS_DATA_DIR=/tmp/bas bas up
    """
    clock = SystemClock()
    since = clock.monotonic()
    environ = dict(os.environ)
    config = load(environ)
    with preflight.data_folder(Path(config.data.dir)) as folder:
        environ |= {"BAS_DATA_DIR": str(folder), **preflight.free_ports(config)}
        # Where a value came from is the person's environment, not what was just put into it.
        settled = replace(load(environ), sources=config.sources)
        preflight.check_ports(addresses(settled))
        keys.make(settled)
        # The loop is the main thread's for as long as we live: the kernel ends Valkey when its starting thread ends.
        return asyncio.run(_run(settled, environ, folder, clock, since))


async def _run(config: Config, environ: Mapping[str, str], folder: Path, clock: Clock, since: float) -> int:
    stop = _stop_signal()
    async with _running(config, environ, folder, clock) as (supervisor, redis):
        ready = asyncio.create_task(_ready(config, clock))
        refused = asyncio.create_task(supervisor.refused())
        stopped = asyncio.create_task(stop.wait())
        waiting = {ready, refused, stopped}
        try:
            await asyncio.wait(waiting, timeout=_START_BOUND, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                raise misuse(f"{refused.result()} refused to start: its message is above.")
            if not stopped.done():
                if not ready.done():
                    raise Failure(_late(await _readiness(config)))
                click.echo(banner(config, seconds=clock.monotonic() - since, redis=redis))
                sys.stdout.flush()
                await stopped
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        _say("stopping")
        leaving = clock.monotonic()
    _say(f"stopped after {clock.monotonic() - leaving:.1f} s")
    return 0


@asynccontextmanager
async def _running(
    config: Config, environ: Mapping[str, str], folder: Path, clock: Clock
) -> AsyncIterator[tuple[Supervisor, str]]:
    supervisor = Supervisor(clock=clock, backoff=Backoff(random=random.random), say=_say)
    given = config.redis.url
    try:
        if not given:
            valkey = ValkeyPart(folder / "valkey", clock)
            await supervisor.add(valkey)
            environ = {**environ, "BAS_REDIS_URL": valkey.url}
        for target in PRESENT:
            await supervisor.add(Child(target, environ))
        yield supervisor, _without_password(given or environ["BAS_REDIS_URL"])
    except PartError as problem:
        raise Failure(f"{problem}") from None
    finally:
        await supervisor.stop([GATEWAY], grace=_GATEWAY_GRACE)
        await supervisor.stop(SERVICES, grace=_SERVICE_GRACE)
        await supervisor.stop([VALKEY], grace=_VALKEY_GRACE)


async def _ready(config: Config, clock: Clock) -> None:
    """Return once the gateway and everything it needs are ready."""
    while True:
        answer = await get(config.gateway.host, config.gateway.port, "/readyz", within=2.0)
        if answer is not None and answer.status == 200:  # noqa: PLR2004 - HTTP's OK
            return
        await clock.sleep(_POLL)


async def _readiness(config: Config) -> str:
    answer = await get(config.gateway.host, config.gateway.port, "/readyz", within=2.0)
    return "the gateway does not answer" if answer is None else answer.body.decode("utf-8", "replace").strip()


def _late(readiness: str) -> str:
    return (
        f"not healthy after {_START_BOUND:.0f} s ({readiness}): the messages above say what each process met; "
        "BAS_LOG_LEVEL=debug shows more."
    )


def _stop_signal() -> asyncio.Event:
    """Set by SIGINT, SIGTERM or SIGHUP; more of them change nothing, the stop is bounded as it is."""
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def _say(message: str) -> None:
    click.echo(f"bas: {message}", err=True)
