"""`bas outbox`: side effects that wait to be delivered, and those that were refused too often."""

import asyncio
import json
import os
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chassis.clock import Clock, SystemClock
from chassis.config import Config, Seconds, load
from chassis.errors import ApiError
from chassis.outbox.parked import RetryFile, retry
from chassis.outbox.records import PARKED, TENANT
from chassis.store.factory import firestore_database, open_engine, sqlite_path
from chassis.store.looking import looking
from chassis.store.port import Document, Key, StoreUnavailable
from launcher.failure import FAILED, Failure, misuse
from launcher.store import schema_of
from launcher.targets import SERVICES

_PATIENCE: Final = Seconds(60)
_PAGE: Final = 500
_DONE_WITHIN: Final = 15.0
"""Seconds in which a running service takes up what it is asked for: some of its looks."""
_EVERY: Final = 0.1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Row:
    """One side effect as it is shown. `age` is in seconds."""

    service: str
    id: str
    state: str
    kind: str
    tenant: str
    key: str
    age: float
    attempts: int
    reason: str


@click.group("outbox")
def command() -> None:
    """Look at side effects that are not delivered yet; try refused ones again.

    \b
    Example:
      bas outbox list --parked
      bas outbox retry --all
    """


@command.command("list")
@click.option("--service", "services", multiple=True, help="Only this service's; may be repeated. Default: all.")
@click.option("--parked", is_flag=True, help="Only what was refused too often and is not tried any more.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Rows at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(*, services: tuple[str, ...], parked: bool, limit: int, as_json: bool) -> None:
    """Show what waits to be delivered and what was parked, oldest first.

    Looks into the stores themselves, whether or not the platform runs.

    \b
    Example:
      bas outbox list --service devices --parked
    """
    config = load(os.environ)
    clock = SystemClock()
    rows = [row for name in _named(services) for row in _run(name, _rows(config, name, clock))]
    rows = sorted((row for row in rows if not parked or row.state == PARKED), key=lambda row: -row.age)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows[:limit]], indent=2))
        return
    for line in _lines(rows[:limit]):
        click.echo(line)
    if len(rows) > limit:
        click.echo(f"… and {len(rows) - limit} more: --limit shows them.")
    if not rows:
        click.echo("Nothing is parked." if parked else "Nothing waits.")


@command.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that is parked.")
@click.option("--service", "services", multiple=True, help="Only this service's; may be repeated. Default: all.")
def retry_command(*, ids: tuple[str, ...], everything: bool, services: tuple[str, ...]) -> int:
    """Let parked side effects be tried again. They come after what has passed them meanwhile.

    Where a service has its store to itself and runs, it is asked to do it, by a file beside the store.

    \b
    Example:
      bas outbox retry 01hzy3v7q8…
    """
    if bool(ids) == everything:
        raise misuse("name the ids to try again (`bas outbox list --parked` shows them), or say --all.")
    config = load(os.environ)
    clock = SystemClock()
    wanted = None if everything else sorted(set(ids))
    done = 0
    for name in _named(services):
        count = _run(name, _retry(config, name, wanted, clock))
        done += count
        if count:
            click.echo(f"{name}: {count} to be tried again")
    if not done:
        click.echo("Nothing of that is parked.", err=True)
    return 0 if done else FAILED


def _named(services: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in services if name not in SERVICES]
    if unknown:
        raise misuse(f"{unknown[0]!r} is not a service. There are: {', '.join(SERVICES)}.")
    return services or tuple(SERVICES)


def _run(service: str, work: Coroutine[Any, Any, _T]) -> _T:
    try:
        return asyncio.run(work)
    except ApiError as problem:
        raise Failure(f"{service}: {problem.message}") from None


async def _rows(config: Config, service: str, clock: Clock) -> list[Row]:
    now = clock.now()
    rows: list[Row] = []
    budget = replace(config.store, read_timeout=_PATIENCE)
    async with looking(budget, Path(config.data.dir), service, schema_of(service), clock=clock) as dump:
        after: Key | None = None
        while dump is not None and (page := await dump.page(TENANT, after, _PAGE)):
            rows += [_row(service, document, now) for document in page]
            after = page[-1].key
    return rows


async def _retry(config: Config, service: str, ids: Sequence[str] | None, clock: Clock) -> int:
    rows = await _rows(config, service, clock)
    there = [row.id for row in rows if row.state == PARKED and (ids is None or row.id in ids)]
    if not there:
        return 0
    budget = replace(config.store, read_timeout=_PATIENCE, write_timeout=_PATIENCE)
    folder = Path(config.data.dir)
    try:
        store = await open_engine(budget, folder, service, schema_of(service), clock=clock)
    except StoreUnavailable:
        if firestore_database(config.store.url) is not None:
            raise
        await _ask(RetryFile(sqlite_path(config.store.url, folder, service)), there, clock)
        return len(there)
    try:
        return await retry(store, there)
    finally:
        await store.close()


async def _ask(file: RetryFile, ids: Sequence[str], clock: Clock) -> None:
    """Of the process that has the store."""
    try:
        file.ask(ids)
    except FileExistsError:
        raise Failure("somebody else asks for the same just now: try again in a few seconds.") from None
    except OSError as problem:
        raise Failure(f"the folder of the store cannot be written ({problem.strerror}).") from None
    until = clock.monotonic() + _DONE_WITHIN
    while file.asked:
        if clock.monotonic() >= until:
            file.withdraw()
            raise Failure("the service that has the store did not take it up: is it well? `bas status` says.")
        await clock.sleep(_EVERY)


def _row(service: str, document: Document, now: datetime) -> Row:
    fields = document.fields
    created = fields.get("created")
    return Row(
        service,
        document.key.id,
        PARKED if PARKED in fields else "pending",
        str(fields.get("kind", "")),
        str(fields.get("tenant", "")),
        str(fields.get("key", "")),
        (now - created).total_seconds() if isinstance(created, datetime) else 0.0,
        int(str(fields.get("attempts", 0))),
        str(fields.get("reason", "")),
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield f"{'SERVICE':<9} {'STATE':<8} {'AGE':>9}  {'KIND':<12} {'TENANT':<16} {'KEY':<32} ID"
    for row in rows:
        yield (
            f"{row.service:<9} {row.state:<8} {row.age:>7.0f} s  {row.kind:<12} {row.tenant:<16} {row.key:<32} {row.id}"
        )
        if row.reason:
            yield f"          refused {row.attempts} times: {row.reason}"
