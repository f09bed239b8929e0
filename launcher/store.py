"""`bas store`: moving documents from one store to another, and the indexes that Firestore needs."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import click

from chassis.clock import Clock, SystemClock
from chassis.config import Config, ConfigError, Seconds, load
from chassis.errors import ApiError
from chassis.outbox.records import with_outbox
from chassis.store.copy import CopyRefused, Tally, copy
from chassis.store.factory import NothingToCopy, open_copy_end
from chassis.store.port import Schema
from launcher.failure import Failure, misuse
from launcher.specs import spec_of
from launcher.targets import SERVICES

_PATIENCE = Seconds(60)
"""For one read or commit: nobody waits for a copy as for a call."""
_EVERY = 1.0
"""Seconds between two lines of progress."""


@click.group("store")
def command() -> None:
    """Move documents between stores; print the indexes that Firestore needs.

    \b
    Example:
      bas store copy --from sqlite:///.bas/ --to firestore://my-project/my-database
      bas store indexes > firestore.indexes.json
    """


@command.command("copy")
@click.option("--from", "source", required=True, help="Where the documents are: a URL as in BAS_STORE_URL.")
@click.option("--to", "target", required=True, help="Where they are to be: another such URL.")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant's; may be repeated. Default: all.")
@click.option("--service", "services", multiple=True, help="Only this service's; may be repeated. Default: all.")
@click.option("--overwrite", is_flag=True, help="Copy into a target that holds documents already.")
def copy_command(
    *, source: str, target: str, tenants: tuple[str, ...], services: tuple[str, ...], overwrite: bool
) -> None:
    """Copy documents from one store to another, and compare what arrived.

    Stop the services first: what they write meanwhile may be missed. A copy that was broken off goes on when the same
    command is given again. Etags change, as documents get new versions.

    \b
    Example:
      bas store copy --from sqlite:///.bas/ --to firestore://my-project/my-database
    """
    config = load(os.environ)
    if source == target:
        raise misuse("--from and --to are the same store.")
    unknown = [name for name in services if name not in SERVICES]
    if unknown:
        raise misuse(f"{unknown[0]!r} is not a service. There are: {', '.join(SERVICES)}.")
    Path(config.data.dir).mkdir(parents=True, exist_ok=True)
    absent: list[NothingToCopy] = []
    for service in services or SERVICES:
        try:
            tally = asyncio.run(_copy(config, source, target, sorted(set(tenants)), service, overwrite=overwrite))
        except NothingToCopy as problem:
            absent.append(problem)
            click.echo(f"{service}: there is no file to copy", err=True)
        else:
            click.echo(f"{service}: {_told(tally)}")
    if absent and (services or len(absent) == len(SERVICES)):
        raise misuse(str(absent[0]))


@command.command("indexes")
def indexes_command() -> None:
    """Print firestore.indexes.json for the services of this release, for `firebase deploy --only firestore:indexes`.

    \b
    Example:
      bas store indexes > firestore.indexes.json
    """
    from chassis.store.firestore_indexes import definition  # noqa: PLC0415 - imports the client library

    click.echo(json.dumps(definition({name: schema_of(name) for name in SERVICES}), indent=2))


def schema_of(service: str) -> Schema:
    """What the service declares of its store, and what its outbox does."""
    return with_outbox(spec_of(service).schema)


async def _copy(
    config: Config, source: str, target: str, tenants: Sequence[str], service: str, *, overwrite: bool
) -> Tally:
    clock, schema, folder = SystemClock(), schema_of(service), Path(config.data.dir)
    patient = replace(config.store, read_timeout=_PATIENCE, write_timeout=_PATIENCE)
    what = {"from": source, "to": target, "service": service, "tenants": list(tenants)}
    record = folder / f"copy-{service}-{sha256(json.dumps(what).encode()).hexdigest()[:12]}.json"
    line = _Line(service, clock)
    try:
        read = await open_copy_end(replace(patient, url=source), folder, service, schema, clock=clock, existing=True)
        try:
            written = await open_copy_end(
                replace(patient, url=target), folder, service, schema, clock=clock, existing=False
            )
            try:
                return await copy(
                    read.dump, written.store, written.dump, tenants, record, what, overwrite=overwrite, told=line.tell
                )
            finally:
                await written.close()
        finally:
            await read.close()
    except CopyRefused as refused:
        raise Failure(f"{service}: {refused}") from None
    except ApiError as problem:
        raise Failure(
            f"{service}: {problem.message} {line.last} Give the same command again to go on from there."
        ) from None
    except NothingToCopy:
        raise
    except ConfigError as problem:
        raise misuse(str(problem).replace("BAS_STORE_URL=", "")) from None


class _Line:
    """Progress on standard error, once a second."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._next = clock.monotonic() + _EVERY
        self.last = "Nothing was copied."

    def tell(self, done: str, documents: int) -> None:
        self.last = f"{documents} documents were {done}."
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + _EVERY
            click.echo(f"{self._service}: {documents} documents {done}", err=True)


def _told(tally: Tally) -> str:
    if not tally.sums:
        return "there is nothing to copy"
    each = ", ".join(f"{name} {count}" for name, (count, _) in sorted(tally.sums.items()))
    return f"{tally.documents} documents copied and compared ({each})"
