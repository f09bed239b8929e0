"""The Firestore adapter against the stand-in as a process of its own: CPU of a call beside the library's, and latency.

The library does the same the documented way: `AsyncClient` with documents, snapshots and `to_dict()`. CPU is that of this
process alone, all threads; both sides take turns, so that a neighbour's load on the machine falls on both.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from google.cloud.firestore import AsyncClient, FieldFilter

from bench.devices import device
from bench.load import Call, closed, paced
from bench.processes import ROOT, free_port, listening, start
from bench.report import Report
from chassis.clock import SystemClock
from chassis.config import Store
from chassis.store.firestore import FirestoreStore
from chassis.store.port import Create, Fields, Filter, Key, Op, Order, Query
from services.devices.device import registered
from services.devices.filters import COLLECTION, CREATED, EVER, SCHEMA
from services.devices.records import Stored, fields_of

_PROJECT: Final = "bench"
_DATABASE: Final = "(default)"
_TENANT: Final = "t"
_EMULATOR: Final = "FIRESTORE_EMULATOR_HOST"
_STORED: Final = 400
_PAGE: Final = 50
_CALLERS: Final = 8
_TURNS: Final = 3
_LATENCY: Final = "20ms"
_NEVER_SEEN: Final = Filter("status", Op.EQ, "DEVICE_STATUS_NEVER_SEEN")
Act = Callable[[int], Awaitable[object]]


async def firestore(report: Report, folder: Path, *, quick: bool) -> None:
    async with _stand_in(folder, "0ms") as address, _both(address) as (store, library):
        await _seed(store)
        await _cpu(report, store, library, share=0.2 if quick else 1.0)
    async with _stand_in(folder, _LATENCY) as address, _both(address) as (store, _):
        await _seed(store)
        await _latency(report, store, seconds=1.0 if quick else 2.0)


def _pairs(store: FirestoreStore, library: AsyncClient) -> list[tuple[str, int, Act, Act]]:
    """(operation, calls a turn, the adapter's, the library's)"""
    devices: Any = library.collection(f"tenants/{_TENANT}/{COLLECTION}")
    fields, ours, theirs = _fields("n"), count(), count()
    page = Query(_TENANT, COLLECTION, (_NEVER_SEEN,), (Order(CREATED),), limit=_PAGE)
    everything = Query(_TENANT, COLLECTION, (_NEVER_SEEN, EVER))
    status: Any = FieldFilter("status", "==", _NEVER_SEEN.value)
    ever: Any = FieldFilter(CREATED, ">=", EVER.value)

    async def read(number: int) -> object:
        return (await devices.document(f"d{number % _STORED}").get()).to_dict()

    async def query(_number: int) -> object:
        asked = devices.where(filter=status).order_by(CREATED).limit(_PAGE)
        return [snapshot.to_dict() async for snapshot in asked.stream()]

    async def counted(_number: int) -> object:
        answer: object = await devices.where(filter=status).where(filter=ever).count(alias="n").get()
        return answer

    return [
        ("read", 300, lambda number: store.get(_key(f"d{number % _STORED}")), read),
        (
            "write",
            300,
            lambda _: store.commit([Create(_key(f"o{next(ours)}"), fields)]),
            lambda _: devices.document(f"l{next(theirs)}").create(fields),
        ),
        (f"query of {_PAGE}", 25, lambda _: store.query(page), query),
        ("count", 150, lambda _: store.count(everything), counted),
    ]


async def _cpu(report: Report, store: FirestoreStore, library: AsyncClient, *, share: float) -> None:
    for name, calls, ours, theirs in _pairs(store, library):
        times = max(_CALLERS, int(calls * share))
        for act in (ours, theirs):
            await _spent(act, _CALLERS)
        turns = [(await _spent(ours, times), await _spent(theirs, times)) for _ in range(_TURNS)]
        # The median by the ratio: both figures are of one turn.
        ratios = sorted((adapter / bare, adapter, bare) for adapter, bare in turns)
        ratio, adapter, bare = ratios[_TURNS // 2]
        note = f"CPU us/op: {adapter * 1e6:.0f} against {bare * 1e6:.0f}"
        note += f"; turns {', '.join(f'{each[0]:.2f}' for each in ratios)}"
        report.at_most(f"Firestore {name}, CPU adapter / library (median of {_TURNS})", ratio, 1.2, note=note)


async def _spent(act: Act, times: int) -> float:
    """Seconds of this process's CPU for one call, of `times` by some callers."""
    numbers = iter(range(times))

    async def caller() -> None:
        for number in numbers:
            await act(number)

    begin = time.process_time()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return (time.process_time() - begin) / times


async def _latency(report: Report, store: FirestoreStore, *, seconds: float) -> None:
    """As much as goes through with 64 callers, then half of that, at a steady pace."""
    fields, numbers = _fields("n"), count()

    async def read(number: int) -> None:
        await store.get(_key(f"d{number % _STORED}"))

    async def write(_number: int) -> None:
        await store.commit([Create(_key(f"w{next(numbers)}"), fields)])

    rows: tuple[tuple[str, Call, float], ...] = (("read", read, 50.0), ("write", write, 70.0))
    for name, call, limit in rows:
        most = await closed(call, callers=64, seconds=seconds)
        report.load(f"Firestore {name}, {_LATENCY} away, 64 callers", most, {})
        half = await paced(call, rate=most.rate / 2, seconds=seconds)
        note = f"p50 {half.percentile(0.5) * 1e3:.1f} ms" + (f"; {half.errors} ERRORS" if half.errors else "")
        title = f"Firestore {name}, {_LATENCY} away, half of the most ({most.rate / 2:.0f}/s), p99"
        report.below(title, half.percentile(0.99) * 1e3, limit, note=note)


def _fields(device_id: str) -> Fields:
    given = device(device_id)
    return fields_of(Stored(_TENANT, registered(device_id, given, datetime(2026, 1, 1, tzinfo=UTC)), ""))


def _key(device_id: str) -> Key:
    return Key(_TENANT, COLLECTION, device_id)


async def _seed(store: FirestoreStore) -> None:
    for first in range(0, _STORED, 100):
        await store.commit([Create(_key(f"d{number}"), _fields(f"d{number}")) for number in range(first, first + 100)])


@asynccontextmanager
async def _stand_in(folder: Path, latency: str) -> AsyncIterator[str]:
    """The address of a stand-in with the deployed indexes, so long after each call."""
    port = free_port()
    server = start(
        "firestore",
        "tests.firestore_server",
        *("--port", str(port), "--project", _PROJECT, "--database", _DATABASE, "--latency", latency),
        *("--indexes", str(ROOT / "firestore.indexes.json")),
        env={},
        log=folder / "firestore.log",
    )
    try:
        await listening(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


@asynccontextmanager
async def _both(address: str) -> AsyncIterator[tuple[FirestoreStore, AsyncClient]]:
    """The adapter and the bare library, each with a channel of its own."""
    with _environment(_EMULATOR, address):
        store = await FirestoreStore.open(
            *(_PROJECT, _DATABASE, SCHEMA),
            clock=SystemClock(),
            budget=Store(),
            random_bytes=os.urandom,
            service="devices",
        )
        library = AsyncClient(project=_PROJECT, database=_DATABASE)
    try:
        yield store, library
    finally:
        await store.close()
        await library._firestore_api.transport.close()  # noqa: SLF001 - the library has no public name for it


@contextmanager
def _environment(name: str, text: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = text
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
