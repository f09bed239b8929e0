"""`bas token`: a signed caller token on standard output, and nothing else."""

import os

import click

from chassis.auth.tokens import ALL_SCOPES, Grant, mint
from chassis.clock import SystemClock
from chassis.config import SETTINGS, ConfigError, load
from launcher import keys
from launcher.failure import misuse


@click.command("token")
@click.option("--tenant", required=True, help="The tenant that the caller belongs to.")
@click.option("--subject", default="local", show_default=True, help="Who the caller is.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope, `<service>:read`, `:write` or `:admin`, each including the ones before it; may be repeated. "
    "Default: admin of every service.",
)
@click.option("--ttl", default="1h", show_default=True, help="How long it is valid, such as 30s, 15m, 1h, 7d.")
def command(*, tenant: str, subject: str, scopes: tuple[str, ...], ttl: str) -> None:
    """Print a signed caller token, made with the key of the platform whose data folder this is.

    Without --scope it may do everything in its tenant. REST, gRPC and grpcurl all accept it as
    `authorization: Bearer TOKEN`.

    \b
    Example:
      export TOKEN=$(bas token --tenant acme --scope devices:read --ttl 15m)
    """
    config = load(os.environ)
    try:
        seconds = float(SETTINGS["BAS_AUTH_MAX_TTL"].parse(ttl))
    except ConfigError:
        raise misuse(f"--ttl {ttl!r} is not a duration: write one such as 30s, 15m, 1h or 7d.") from None
    grant = Grant(tenant=tenant, subject=subject, scopes=scopes or ALL_SCOPES, ttl=seconds)
    try:
        token = mint(keys.existing(config), config.auth, grant, SystemClock().now())
    except ValueError as problem:
        raise misuse(f"{problem}.") from None
    click.echo(token)
