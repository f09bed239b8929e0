"""Event streams: publications, deliveries, latency and memory, through gateway, events service and log; beside a naive
server with a queue per client.

Deliveries are of a closed loop: more is published when all that was has come but for a few events, so that the slowest
part sets the rate. For `one a write` each event waits until the one before has come to everybody.
"""

import asyncio
import json
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol

from google.protobuf.struct_pb2 import Value
from grpc.aio import AioRpcError

from bas.events.v2.events_pb2 import CloudEvent
from bas.events.v2.events_service_pb2 import PublishEventsRequest
from bench import http
from bench.devices import measured
from bench.events_place import HEARTBEAT, STREAM, Place, place
from bench.footprint import footprint
from bench.load import Result, closed, paced
from bench.platform import GrpcCaller, HttpCaller
from bench.processes import Observed
from bench.report import Report
from bench.side_effects import side_effects
from bench.sse_readers import Readers, Window, stamp

_PUBLISH: Final = "/bas.events.v2.EventService/PublishEvents"
_DATA: Final = 100
"""Characters of each event's data."""
_ALONE: Final = 100.0
_CALLERS: Final = 32
_AHEAD: Final = 192
"""Events that are published and have not come to everybody, at most."""
_BATCH: Final = 32
_STEADY: Final = 5.0
"""Events a second, where latency is measured."""
_FIRST: Final = 50
_STALLED: Final = 100
_STALLED_DATA: Final = 32 * 1024
_STALLED_EVENTS: Final = 128
_STALLED_BATCH: Final = 4
_STALLED_PAUSE: Final = 0.03
_SETTLE: Final = 0.5
_TRIES: Final = 10
_AGAIN: Final = 0.3
_POLL: Final = 0.0005
_WITHIN: Final = 30.0


class Publish(Protocol):
    def __call__(self, amount: int) -> Awaitable[None]:
        """So many events, of one publication."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """Seconds of each row, and how many connections."""

    seconds: float
    some: int
    many: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Deliveries a second of time, and of the CPU of the server that writes them."""

    rate: float
    per_cpu: float


@dataclass(frozen=True, slots=True)
class Flows:
    """Several events a write, as they come, and one; and the bytes of an idle connection."""

    bursts: Flow
    singles: Flow
    idle: float


class _Publisher:
    """Publishes through the events service. With more than one try, what failed is published again, which is harmless: an
    error of one publication is none of those who read."""

    def __init__(self, caller: GrpcCaller, run: str, tries: int = 1) -> None:
        self._caller = caller
        self._run = run
        self._tries = tries
        self._numbers = count()

    async def __call__(self, amount: int, data: int = _DATA, number: int = 0) -> None:
        request = PublishEventsRequest(events=[self._event(data) for _ in range(amount)]).SerializeToString()
        for left in reversed(range(self._tries)):
            try:
                await self._caller.call(number, request)
            except AioRpcError:
                if not left:
                    raise
                await asyncio.sleep(_AGAIN)
            else:
                return

    def _event(self, data: int) -> CloudEvent:
        event_id = f"{self._run}-{next(self._numbers)}"
        value = Value(string_value=stamp(data))
        return CloudEvent(id=event_id, source="/bench", type="bench.event", subject="devices/d1", data=value)


class _NaivePublisher:
    """Publishes to the naive server the same documents."""

    def __init__(self, caller: HttpCaller) -> None:
        self._caller = caller
        self._numbers = count()

    async def __call__(self, amount: int) -> None:
        events = [
            {
                "id": f"streams-{next(self._numbers)}",
                "source": "/bench",
                "type": "bench.event",
                "subject": "devices/d1",
                "time": "2026-01-01T00:00:00.123456Z",
                "data": stamp(_DATA),
            }
            for _ in range(amount)
        ]
        await self._caller.call(0, http.request("POST", "/publish", "bench", "none", json.dumps(events).encode()))


async def events(report: Report, folder: Path, *, quick: bool) -> None:
    """All rows, over processes of its own."""
    sizes = Sizes(1.0, 200, 1000) if quick else Sizes(2.5, 1000, 10_000)
    report.at_most("gateway memory of the event streams, idle", footprint(), 2.0, "MB", "code and hub; median of 3")
    async with place(folder / "events") as where:
        # To these nothing happens for as long as everybody else is busy.
        quiet = Readers(where.folder, where.beating_port, STREAM, where.quiet_token, 1)
        try:
            await quiet.connect(50)
            await quiet.begin()
            await _publications(where, report, sizes)
            silence = (await quiet.end()).silence
        finally:
            await quiet.stop()
        note = f"{silence:.2f} s at a setting of {HEARTBEAT:g} s; 1.33 is 20 s at the default of 15 s"
        report.at_most("longest silence of an idle stream / setting", silence / HEARTBEAT, 20 / 15, note=note)
        naive = await _naive(where, report, sizes)
        ours = await _streams(where, report, sizes)
        rate, cpu = ours.bursts.rate / naive.bursts.rate, ours.bursts.per_cpu / naive.bursts.per_cpu
        note = f"per CPU second of the server that writes them: {cpu:.1f} x"
        report.at_least("deliveries/s, as they come, ours / naive", rate, 5.0, note=note)
        # Event by event the time is mostly that of the way there: through a log, or into a list.
        cpu = ours.singles.per_cpu / naive.singles.per_cpu
        note = f"per second of time: {ours.singles.rate / naive.singles.rate:.1f} x"
        report.tells("deliveries a CPU second, one a write, ours / naive", cpu, "x", note)
        report.at_most("memory of an idle connection, ours / naive", ours.idle / naive.idle, 0.5)
        await _stalled(where, report)
        await side_effects(where, report, sizes.seconds)


async def _publications(where: Place, report: Report, sizes: Sizes) -> None:
    """An event is stored when the events service has answered: it answers when the log has it."""
    caller = GrpcCaller(where.events_port, _PUBLISH, where.metadata)
    publish = _Publisher(caller, "stored")
    servers = (where.events, where.log)

    async def one(number: int) -> None:
        await publish(1, number=number)

    async def hundred(number: int) -> None:
        await publish(100, number=number)

    await closed(one, callers=4, seconds=0.3, warm=0.0)
    alone = await measured(
        paced(one, rate=_ALONE, seconds=sizes.seconds), report, f"publish, 1 at a time, {_ALONE:.0f}/s", servers
    )
    _stored(report, f"publish → stored, {_ALONE:.0f}/s", alone)
    most = await measured(
        closed(one, callers=_CALLERS, seconds=sizes.seconds), report, f"publish, {_CALLERS} callers", servers
    )
    title = f"half of the most ({most.rate / 2:.0f}/s)"
    half = await measured(
        paced(one, rate=most.rate / 2, seconds=sizes.seconds, callers=_CALLERS), report, f"publish, {title}", servers
    )
    _stored(report, f"publish → stored, {title}", half)
    batches = await measured(
        closed(hundred, callers=4, seconds=sizes.seconds / 2, warm=0.2),
        report,
        "publish, batches of 100, 4 callers",
        servers,
    )
    report.tells("publish, batches of 100, events", batches.rate * 100, "/s")
    await caller.close()


def _stored(report: Report, title: str, result: Result) -> None:
    note = f"p50 {result.percentile(0.5) * 1e3:.2f} ms"
    report.below(f"{title}, p99", result.percentile(0.99) * 1e3, 15.0, note=note)


async def _naive(where: Place, report: Report, sizes: Sizes) -> Flows:
    """The server with a queue per client: the same documents, the same readers."""
    caller = HttpCaller(where.naive_port)
    publish = _NaivePublisher(caller)
    readers = Readers(where.folder, where.naive_port, "/stream", "none")
    try:
        idle = await _connect(readers, where.naive, sizes.some)
        report.tells(f"memory of an idle connection, naive, {sizes.some:,}", idle / 1024, "KiB")
        bursts = await _saturated(report, publish, readers, sizes, "naive, as they come", (where.naive,))
        singles = await _saturated(report, publish, readers, sizes, "naive, one a write", (where.naive,), ahead=1)
        _received(
            report,
            f"publish → received, naive, {sizes.some:,}",
            await _steady(publish, readers, sizes, sizes.some),
            None,
        )
    finally:
        await readers.stop()
        caller.close()
    return Flows(bursts, singles, idle)


async def _streams(where: Place, report: Report, sizes: Sizes) -> Flows:
    """Through events service, log and gateway: at some connections, then at many."""
    caller = GrpcCaller(where.events_port, _PUBLISH, where.metadata, channels=1)
    publish = _Publisher(caller, "streams", _TRIES)
    readers = Readers(where.folder, where.gateway_port, STREAM, where.token)
    servers = (where.gateway, where.events, where.log)
    try:
        idle = await _connect(readers, where.gateway, sizes.some)
        report.tells(f"memory of an idle connection, {sizes.some:,}", idle / 1024, "KiB")
        bursts = await _saturated(report, publish, readers, sizes, "as they come", servers)
        singles = await _saturated(report, publish, readers, sizes, "one a write", servers, ahead=1)
        _received(
            report, f"publish → received, {sizes.some:,}", await _steady(publish, readers, sizes, sizes.some), 50.0
        )
        before, begin = where.gateway.resident(), time.perf_counter()
        await readers.connect(sizes.many - sizes.some)
        took, opened = time.perf_counter() - begin, sizes.many - sizes.some
        grown = (where.gateway.resident() - before) / opened
        note = f"opened at {opened / took:,.0f}/s"
        report.tells(f"memory of an idle connection, {sizes.many:,}", grown / 1024, "KiB", note)
        window = await _steady(publish, readers, sizes, sizes.many, where.gateway)
        _received(report, f"publish → received, {sizes.many:,}", window, 50.0)
    finally:
        await readers.stop()
        await caller.close()
    return Flows(bursts, singles, idle)


async def _stalled(where: Place, report: Report) -> None:
    """Connections that read nothing, at a gateway that has had no others: what was freed before would hide what they take."""
    caller = GrpcCaller(where.events_port, _PUBLISH, where.metadata, channels=1)
    publish = _Publisher(caller, "stalled", _TRIES)
    readers = Readers(where.folder, where.beating_port, STREAM, where.token, 1)
    try:
        await readers.connect(_STALLED, stalled=True)
        await asyncio.sleep(_SETTLE)
        before, most = where.beating.resident(), 0
        for _ in range(_STALLED_EVENTS // _STALLED_BATCH):
            await publish(_STALLED_BATCH, _STALLED_DATA)
            await asyncio.sleep(_STALLED_PAUSE)
            most = max(most, where.beating.resident())
    finally:
        await readers.stop()
        await caller.close()
    note = f"{_STALLED} that read nothing of {_STALLED_EVENTS} events of {_STALLED_DATA // 1024} KiB; its highest, the ring in it"
    report.tells("memory of a stalled connection", (most - before) / _STALLED / 1024, "KiB", note)


async def _connect(readers: Readers, server: Observed, amount: int) -> float:
    """Open so many; the bytes that each takes of the server's memory, the first few aside."""
    await readers.connect(_FIRST)
    await asyncio.sleep(_SETTLE)
    before = server.resident()
    await readers.connect(amount - _FIRST)
    await asyncio.sleep(_SETTLE)
    return (server.resident() - before) / (amount - _FIRST)


async def _saturated(
    report: Report,
    publish: Publish,
    readers: Readers,
    sizes: Sizes,
    what: str,
    servers: tuple[Observed, ...],
    *,
    ahead: int = _AHEAD,
) -> Flow:
    """Publish whatever is taken; the first of the servers is the one that writes to the connections."""
    batch = min(_BATCH, ahead)
    came, published = readers.events, 0
    await readers.begin()
    used = [server.cpu() for server in servers]
    begin = time.perf_counter()
    while time.perf_counter() < begin + sizes.seconds:
        await publish(batch)
        published += batch
        await _came(readers, came + (published - ahead + batch) * sizes.some)
    await _came(readers, came + published * sizes.some)
    seconds = time.perf_counter() - begin
    used = [server.cpu() - before for server, before in zip(servers, used, strict=True)]
    window = await readers.end()
    flow = Flow(window.events / seconds, window.events / max(used[0], 0.01))
    spent = ", ".join(f"{server.name} {cpu / seconds:.2f}" for server, cpu in zip(servers, used, strict=True))
    note = f"{flow.per_cpu:,.0f} a CPU second of the first; {window.events / window.reads:.1f} events a read; cores: {spent}"
    note += f", readers {window.cpu / seconds:.2f}"
    if window.events != published * sizes.some or window.lost:
        note += f"; {published * sizes.some - window.events} MISSING, {window.lost} connections LOST"
    report.tells(f"deliveries, {what}, {sizes.some:,}", flow.rate, "/s", note)
    return flow


async def _came(readers: Readers, events: int) -> None:
    """Return once so many have come. Raises TimeoutError."""
    async with asyncio.timeout(_WITHIN):
        while readers.events < events:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(_POLL)


async def _steady(
    publish: Publish, readers: Readers, sizes: Sizes, connections: int, server: Observed | None = None
) -> tuple[Window, float]:
    """A modest rate of events to all connections; what came, and the server's CPU seconds a delivery."""
    came = readers.events
    await readers.begin()
    used = server.cpu() if server else 0.0
    amount = int(_STEADY * 2 * sizes.seconds)
    begin = time.perf_counter()
    for number in range(amount):
        # By turns earlier and later, or the rate would beat with the timers of those who are measured.
        planned = begin + (number + (number * 0.618) % 1.0 / 2) / _STEADY
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        await publish(1)
    await _came(readers, came + amount * connections)
    window = await readers.end()
    spent = (server.cpu() - used if server else 0.0) / max(1, readers.events - came)
    return window, spent


def _received(report: Report, title: str, found: tuple[Window, float], limit: float | None) -> None:
    window, spent = found
    note = f"p50 {window.percentile(0.5):.1f} ms, {window.latencies.total():,} deliveries at {_STEADY:g} events/s"
    note += f"; CPU us a delivery: gateway {spent * 1e6:.1f}" if spent else ""
    note += f"; {window.lost} connections LOST" if window.lost else ""
    if limit is None:
        report.tells(f"{title}, p99", window.percentile(0.99), "ms", note)
    else:
        report.below(f"{title}, p99", window.percentile(0.99), limit, note=note)
