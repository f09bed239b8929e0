"""The `bas` command. Each subcommand is a file of its own, imported only when it is asked for.

Exit codes: 0 well, 2 wrong usage or configuration, 1 failure. Every message says what to do next; a traceback is shown
to nobody, unless BAS_LOG_LEVEL=debug asks for it.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import click

from chassis.config import ConfigError
from launcher.failure import FAILED, MISUSED, Failure

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "up": "launcher.up",
        "serve": "launcher.serve",
        "token": "launcher.credential",
        "config": "launcher.config",
        "status": "launcher.status",
        "store": "launcher.store",
        "outbox": "launcher.outbox",
        "audit": "launcher.audit.commands",
        "events": "launcher.events",
    }
)
"""Command → the module whose `command` it is."""

_INTERRUPTED: Final = 130


class Commands(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        return command if isinstance(command, click.Command) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bas-platform", prog_name="bas")
def bas() -> None:
    """Sessions, users, devices, audit log and events: run them, talk to them, look at them.

    \b
    Example:
      bas up                     start everything on this machine
      bas token --tenant acme    print a credential for it
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    try:
        result = bas.main(args=arguments, prog_name="bas", standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except (ConfigError, Failure) as problem:
        click.echo(f"bas: {problem}", err=True)
        return problem.exit_code if isinstance(problem, Failure) else MISUSED
    except (click.Abort, KeyboardInterrupt):
        result = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`bas config | head`): nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        result = 0
    except Exception as problem:
        if os.environ.get("BAS_LOG_LEVEL") == "debug":
            raise
        click.echo(
            f"bas: {type(problem).__name__}: {problem}. This should not happen: run it again with "
            "BAS_LOG_LEVEL=debug to see where, and report it.",
            err=True,
        )
        result = FAILED
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the `bas` script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
