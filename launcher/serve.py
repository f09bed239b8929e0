"""`bas serve`: one process with the named targets, until SIGTERM or SIGINT."""

import os
from typing import Final

import click

from chassis.clock import SystemClock
from chassis.config import Config, load
from launcher import keys
from launcher.child import end_with_supervisor
from launcher.failure import Failure
from launcher.targets import GATEWAY, chosen, key_path

_STORE_CORRUPT: Final = "STORE_CORRUPT"


@click.command("serve")
@click.option("--supervised", is_flag=True, hidden=True, help="End when the other end of standard input closes.")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
def command(*, supervised: bool, targets: tuple[str, ...]) -> None:
    """Serve the named targets in one process: sessions users devices audit events gateway.

    Needs a Redis or Valkey at BAS_REDIS_URL (`bas up` brings its own). SIGTERM drains and stops it.

    \b
    Example:
      BAS_REDIS_URL=redis://127.0.0.1:6379/0 bas serve devices gateway
    """
    names = chosen(targets)
    config = load(os.environ)
    if supervised:
        end_with_supervisor()
    _serve(config, names)


def _serve(config: Config, names: tuple[str, ...]) -> None:
    # Here and below, a process imports what its targets need and nothing else: half of the time of a start is imports.
    from chassis.errors import ApiError  # noqa: PLC0415
    from chassis.runtime import Component, run, run_until_signal  # noqa: PLC0415
    from chassis.telemetry import logs  # noqa: PLC0415
    from launcher.process import Process  # noqa: PLC0415

    logs.configure(config.log, "+".join(names))
    process = Process(config, SystemClock(), key_path(config), keys.make(config))

    def component(name: str) -> Component:
        if name == GATEWAY:
            from launcher.gateway_target import GatewayTarget  # noqa: PLC0415

            return GatewayTarget(process)
        from launcher.service_target import ServiceTarget  # noqa: PLC0415

        return ServiceTarget(process, name)

    try:
        # Services first: stopped in reverse, the gateway finishes its requests while they still answer.
        run(run_until_signal([component(name) for name in sorted(names, key=lambda name: name == GATEWAY)]))
    except ApiError as problem:
        raise Failure(problem.message, 2 if problem.reason == _STORE_CORRUPT else 1) from None
