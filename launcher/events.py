"""`bas events`: follow a tenant's events, and publish some."""

import asyncio
import json
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from bas.events.v2.events_pb2 import LoggedEvent
from bas.events.v2.events_service_pb2 import (
    DESCRIPTOR,
    PublishEventsRequest,
    PublishEventsResponse,
    SubscribeEventsRequest,
)
from chassis import policies
from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.clock import Clock, SystemClock
from chassis.config import Config, load
from chassis.errors import ApiError, Code
from chassis.interceptors.client import Metadata
from chassis.telemetry.metrics import Metrics
from gateway.sse.frames import cloud_event
from launcher import keys
from launcher.event_lines import BadLine, Lines, event_of, human, read_lines
from launcher.event_tail import Tail
from launcher.failure import Failure, misuse
from launcher.targets import address_of

_METHODS: Final = DESCRIPTOR.services_by_name["EventService"].methods_by_name
_TTL: Final = 3600.0
_BATCH: Final = 500
_BATCH_BYTES: Final = 1024 * 1024
_SECONDS: Final = 5.0


@click.group("events")
def command() -> None:
    """Follow what happens in a tenant, and publish events of your own.

    Talks to the events service where the settings would have put it, with a token signed by the key of its data folder.

    \b
    Example:
      bas events tail --tenant acme
      bas events publish --tenant acme --type order.paid --source /shop --data '{"order": 7}'
    """


@command.command("tail")
@click.option("--tenant", required=True, help="Whose events.")
@click.option(
    "--type", "types", multiple=True, help="Only this type; `device.*` is all that begin so; may be repeated."
)
@click.option("--subject", default="", help="Only of this subject, such as devices/d1.")
@click.option("--source", default="", help="Only from this source, such as /bas/devices.")
@click.option(
    "--cursor", default="", help="Go on from here, as an earlier run said. Default: what happens from now on."
)
@click.option("--count", default=0, type=click.IntRange(0), help="End after so many events. Default: never.")
@click.option("--json", "as_json", is_flag=True, help="Print each event and its cursor as one line of JSON.")
def tail_command(
    *, tenant: str, types: tuple[str, ...], subject: str, source: str, cursor: str, count: int, as_json: bool
) -> None:
    """Print events as they happen, one a line, until Ctrl-C.

    A connection that breaks is made again, and nothing is missed. Where that is impossible, because the log was lost or
    no longer goes back so far, standard error says so; it also says at the end from which cursor another run goes on.

    \b
    Example:
      bas events tail --tenant acme --type 'device.*' --type session.revoked
    """
    config = load(os.environ)
    asked = SubscribeEventsRequest(types=types, subject=subject, source=source, cursor=cursor)
    asyncio.run(_tail(config, SystemClock(), tenant, asked, count=count, write=_as_json if as_json else human))


@command.command("publish")
@click.option("--tenant", required=True, help="In whose log.")
@click.option("--type", "type_", default="", help="What happened, such as order.paid. Without it, events are read.")
@click.option("--source", default="", help="Where it happened, such as /shop.")
@click.option("--subject", default="", help="What it happened to, such as orders/7.")
@click.option("--id", "id_", default="", help="Names it together with the source. Default: one of its own.")
@click.option("--data", default=None, help="What there is to say about it, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each event.")
def publish_command(
    *, tenant: str, type_: str, source: str, subject: str, id_: str, data: str | None, as_json: bool
) -> None:
    """Publish one event, or those on standard input: a CloudEvent in JSON on each line.

    Prints where each is in the log: its sequence number and its cursor, after which `bas events tail` goes on. An event that
    was published before, by its source and id, is not published again. Lines may be what `bas events tail --json` prints.

    \b
    Example:
      bas events publish --tenant acme --type order.paid --source /shop --data '{"order": 7}'
      bas events publish --tenant acme < events.jsonl
    """
    config = load(os.environ)
    attributes = {"source": source, "subject": subject, "id": id_}
    if type_:
        event: dict[str, Any] = {"type": type_} | {name: text for name, text in attributes.items() if text}
        if not source:
            raise misuse("--type needs --source, such as /shop.")
        if data is not None:
            try:
                event["data"] = json.loads(data)
            except ValueError as problem:
                raise misuse(f"--data is no JSON ({problem}): text needs quotes of its own, '\"text\"'.") from None
        one = json.dumps(event).encode()
        asyncio.run(_publish(config, SystemClock(), tenant, _only(one), as_json=as_json))
        return
    if data is not None or any(attributes.values()):
        raise misuse("--type is missing. Without any of these options, events are read from standard input.")
    asyncio.run(_publish(config, SystemClock(), tenant, read_lines(sys.stdin.fileno()), as_json=as_json))


@dataclass(frozen=True, slots=True)
class _Service:
    """The events service; `metadata` makes call metadata with a new token."""

    client: Client
    address: str
    metadata: Callable[[], Metadata]


@asynccontextmanager
async def _service(config: Config, clock: Clock, tenant: str, scope: str) -> AsyncIterator[_Service]:
    signing = keys.existing(config)
    ttl = min(_TTL, config.auth.max_ttl)

    def metadata() -> Metadata:
        token = mint(signing, config.auth, Grant(tenant, "local", (scope,), ttl), clock.now())
        return (("authorization", f"Bearer {token}"),)

    address = address_of(config, "events")
    client = Client(
        address,
        config=config.grpc,
        deadline=config.deadline,
        metrics=Metrics(),
        clock=clock,
        random=random.random,
        retry=config.retry,
    )
    try:
        metadata()
        yield _Service(client, address, metadata)
    except ValueError as problem:
        raise misuse(f"{problem}.") from None
    except ApiError as problem:
        raise _failure(problem, address) from None
    finally:
        await client.close()


async def _tail(
    config: Config,
    clock: Clock,
    tenant: str,
    asked: SubscribeEventsRequest,
    *,
    count: int,
    write: Callable[[LoggedEvent], str],
) -> None:
    async with _service(config, clock, tenant, "events:read") as service:
        call = service.client.stream(policies.path(_METHODS["SubscribeEvents"]))
        tail = Tail(asked, call, service.metadata, clock=clock, random=random.random, say=_say)
        printing = asyncio.create_task(_print(tail, count, write))
        stopped = _stop_signal()
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({printing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            printing.cancel()
            results = await asyncio.gather(printing, stopping, return_exceptions=True)
            if tail.cursor != asked.cursor:
                _say(f"go on with --cursor {tail.cursor}")
        problem = results[0]
        if isinstance(problem, Exception):
            raise problem


async def _print(tail: Tail, count: int, write: Callable[[LoggedEvent], str]) -> None:
    printed = 0
    async for logged in tail:
        sys.stdout.write(write(logged) + "\n")
        sys.stdout.flush()
        tail.cursor = logged.cursor  # only what was printed is behind us
        printed += 1
        if printed == count:
            return


async def _publish(config: Config, clock: Clock, tenant: str, lines: Lines, *, as_json: bool) -> None:
    async with _service(config, clock, tenant, "events:write") as service:
        method = _METHODS["PublishEvents"]
        publish = service.client.unary(policies.path(method), policies.of_method(method))
        number = 0
        try:
            async for some in lines:
                for batch in _batches(some):
                    request = _request(batch, number + 1)
                    if request.events:
                        data = request.SerializeToString()
                        answer = await publish(data, timeout=_SECONDS, metadata=service.metadata())
                        _show(request, PublishEventsResponse.FromString(answer), as_json=as_json)
                    number += len(batch)
        except (ApiError, BadLine) as problem:
            failure = _failure(problem, service.address) if isinstance(problem, ApiError) else misuse(str(problem))
            before = f" The {number} lines before were published." if number else ""
            raise Failure(f"{failure}{before}", failure.exit_code) from None


def _request(lines: Sequence[bytes], first: int) -> PublishEventsRequest:
    request = PublishEventsRequest()
    for number, line in enumerate(lines, first):
        if line.strip():
            try:
                request.events.append(event_of(line, new_id=lambda: str(uuid.uuid4())))
            except BadLine as problem:
                raise BadLine(f"line {number}: {problem} Nothing from line {first} on was published.") from None
    return request


def _batches(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """As many in one publication as it may have."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == _BATCH or size + len(line) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    yield batch


def _show(request: PublishEventsRequest, answer: PublishEventsResponse, *, as_json: bool) -> None:
    for event, placed in zip(request.events, answer.results, strict=True):
        if as_json:
            told = {"id": event.id, "sequence": placed.sequence, "cursor": placed.cursor, "duplicate": placed.duplicate}
            click.echo(json.dumps(told))
        else:
            click.echo(f"{placed.sequence:>8} {placed.cursor}{'  published before' if placed.duplicate else ''}")


def _as_json(logged: LoggedEvent) -> str:
    document = {"cursor": logged.cursor, "event": cloud_event(logged.event)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _failure(problem: ApiError, address: str) -> Failure:
    if problem.code is Code.INVALID_ARGUMENT:
        return misuse(problem.message)
    if problem.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return Failure(f"no answer from the events service at {address}: {problem.message} `bas status` looks at it.")
    return Failure(problem.message)


async def _only(line: bytes) -> AsyncIterator[Sequence[bytes]]:
    yield [line]


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


def _say(message: str) -> None:
    click.echo(f"bas: {message}", err=True)
