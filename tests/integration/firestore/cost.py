"""What each call of the devices service asks of Firestore: documents read, written and deleted, as they are billed.

Counted at the stand-in, through the real service, adapter and client. `python -m tests.integration.firestore.cost` puts
the table into docs/firestore.md.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Device, Reading
from bas.devices.v2.devices_service_pb2 import GetTelemetryRequest, ReportTelemetryRequest
from chassis.clock import FakeClock
from chassis.errors import ApiError
from chassis.outbox.committed import CommittedOutbox
from chassis.outbox.port import EVENT
from tests.firestore_server import FirestoreServer
from tests.integration.devices import calls
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.firestore_store import connected, deployed
from tests.support.stores import ROOT
from tests.support.valkey import Valkey

DOC: Final = ROOT / "docs" / "firestore.md"
HEADING: Final = "## Cost"
_HEAD: Final = "| call | reads | writes | deletes |\n|---|---|---|---|\n"
_PAGE: Final = 50
_BATCH: Final = 100
_BEAT: Final = 30
"""Seconds between two heartbeats, as devices are told by default."""
Act: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Row:
    call: str
    reads: int
    writes: int
    deletes: int

    def __str__(self) -> str:
        return f"| {self.call} | {self.reads} | {self.writes} | {self.deletes} |"


class Meter:
    """Rows in the order in which they were counted."""

    def __init__(self, server: FirestoreServer) -> None:
        self.rows: list[Row] = []
        self._server = server

    async def count(self, call: str, act: Act, *, refused: bool = False) -> None:
        """What `act` costs, also where it is `refused`."""
        self._server.counts.clear()
        try:
            await act()
            assert not refused, call
        except ApiError:
            if not refused:
                raise
        counts = self._server.counts
        self.rows.append(Row(call, counts.reads, counts.writes, counts.deletes))


async def measure(valkey: Valkey) -> list[Row]:
    """All rows. The cache has to be empty."""
    clock = FakeClock()
    async with deployed() as server:
        meter = Meter(server)
        async with connected(server) as store, _replica(CountingStore(store), valkey, clock) as devices:
            meter.rows.append(Row("start of a service", server.counts.reads, 0, 0))
            with devices.tenant("acme"):
                await _creating(meter, devices, valkey, clock)
                await _reading(meter, devices)
                await _changing(meter, devices)
                await _beating(meter, devices, clock)
                await _sweeping(meter, devices, clock)
        return meter.rows


def _replica(store: CountingStore, valkey: Valkey, clock: FakeClock) -> AbstractAsyncContextManager[Devices]:
    """Of a deployment with events: what is told is committed with the change. Its delivery is counted nowhere here."""
    outbox = CommittedOutbox(clock, "counted")
    outbox.open([EVENT], lambda: None)
    return replica(store, valkey, clock, presence=clock, outbox=outbox)


def table(rows: list[Row]) -> str:
    return _HEAD + "\n".join(map(str, rows)) + "\n"


async def _creating(meter: Meter, devices: Devices, valkey: Valkey, clock: FakeClock) -> None:
    await meter.count("CreateDevice of a new tenant", lambda: calls.create(devices, "d1"))
    await meter.count("CreateDevice", lambda: calls.create(devices, "d2"))
    async with _replica(devices.store, valkey, clock) as other:
        await meter.count("CreateDevice, a process's first for the tenant", lambda: calls.create(other, "d0"))
    await meter.count("CreateDevice of an id that is taken", lambda: calls.create(devices, "d2"), refused=True)
    await meter.count("CreateDevice with a request_id", lambda: calls.create(devices, "d3", "r1"))
    await meter.count("the same again: its first answer", lambda: calls.create(devices, "d3", "r1"))
    some = [Device(device_id=f"b{number}") for number in range(_BATCH)]
    await meter.count(f"BatchCreateDevices of {_BATCH}", lambda: calls.batch(devices, some))
    some = [Device(device_id=f"c{number}") for number in range(_BATCH)]
    await meter.count(f"BatchCreateDevices of {_BATCH} with a request_id", lambda: calls.batch(devices, some, "r2"))
    await meter.count("the same again: its first answers", lambda: calls.batch(devices, some, "r2"))


async def _reading(meter: Meter, devices: Devices) -> None:
    await meter.count("GetDevice, not cached", lambda: calls.get(devices, "d1"))
    await meter.count("GetDevice, cached", lambda: calls.get(devices, "d1"))
    await meter.count("GetDevice of what is not there, not cached", lambda: calls.get(devices, "none"), refused=True)
    await meter.count("GetDevice of what is not there, cached", lambda: calls.get(devices, "none"), refused=True)
    first = await calls.listed(devices, page_size=_PAGE, order_by="display_name")

    def page(token: str = "") -> Act:
        return lambda: calls.listed(devices, page_size=_PAGE, page_token=token)

    await meter.count(f"ListDevices, first page of {_PAGE}, not cached", page())
    await meter.count(f"ListDevices, first page of {_PAGE}, cached", page())
    token = first.next_page_token
    await meter.count(
        f"ListDevices, another page of {_PAGE}",
        lambda: calls.listed(devices, page_size=_PAGE, order_by="display_name", page_token=token),
    )
    await meter.count(
        "ListDevices by a label that no device has, not cached",
        lambda: calls.listed(devices, filter='labels.site = "north"'),
    )
    await meter.count("CountDevices of up to 1000 in each status, not cached", lambda: calls.count(devices))
    await meter.count("CountDevices, cached", lambda: calls.count(devices))
    report = ReportTelemetryRequest(device_id="d1", readings={"door": Reading(bool_value=True)})
    await meter.count("ReportTelemetry, the device cached", lambda: devices.api.ReportTelemetry(report))
    telemetry = GetTelemetryRequest(device_id="d1")
    await meter.count("GetTelemetry, the device cached", lambda: devices.api.GetTelemetry(telemetry))


async def _changing(meter: Meter, devices: Devices) -> None:
    def rename(name: str, **more: Any) -> Act:
        return lambda: calls.update(devices, Device(device_id="d1", display_name=name, **more), "display_name")

    await meter.count("UpdateDevice", rename("Boiler 7"))
    await meter.count("UpdateDevice that changes nothing", rename("Boiler 7"))
    await meter.count("UpdateDevice with an etag that is not current", rename("Boiler 8", etag='"1"'), refused=True)
    await meter.count("SetDeviceStatus", lambda: calls.set_status(devices, DEVICE_STATUS_DISABLED, "d2"))
    etag = (await calls.get(devices, "d3")).etag
    await meter.count("DeleteDevice", lambda: calls.delete(devices, "d2"))
    await meter.count("DeleteDevice with an etag", lambda: calls.delete(devices, "d3", etag))
    await meter.count("DeleteDevice of what is not there", lambda: calls.delete(devices, "none"), refused=True)


async def _beating(meter: Meter, devices: Devices, clock: FakeClock) -> None:
    await calls.get(devices, "b1")
    numbers = iter(range(1, 10_000))

    async def beat() -> None:
        await calls.beat(devices, "b1", "boot", next(numbers))

    await meter.count("Heartbeat that turns the device online, cached", beat)
    await meter.count("Heartbeat after a change of the device", beat)
    await meter.count("Heartbeat until the flush is due", beat)
    await clock.advance(61)
    await meter.count("Heartbeat with which the flush is due", beat)
    await beat()

    async def ten_minutes() -> None:
        for _ in range(10 * 60 // _BEAT):
            await clock.advance(_BEAT)
            await beat()

    await meter.count(f"ten minutes of heartbeats each {_BEAT} s", ten_minutes)


async def _sweeping(meter: Meter, devices: Devices, clock: FakeClock) -> None:
    sweep = devices.sweep
    for _ in range(18):
        await sweep.due()
        await clock.advance(5)
        await calls.beat(devices, "b1")
    await meter.count("a round of the sweep, nobody silent", sweep.due)
    for _ in range(17):
        await clock.advance(5)
        await sweep.due()
    await clock.advance(10)
    await meter.count("a round of the sweep, for each device that fell silent", sweep.due)
    await meter.count("the look for forgotten devices, one tenant and none found", sweep.forgotten)


def stated() -> str:
    """The document's table."""
    text = DOC.read_text(encoding="utf-8") if DOC.exists() else ""
    section = text.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    return "".join(f"{line}\n" for line in section.splitlines() if line.startswith("|"))


def write(rows: list[Row]) -> None:
    """Replace the document's table; where there is no such section, it becomes the last one."""
    text = DOC.read_text(encoding="utf-8") if DOC.exists() else "# Firestore\n"
    old = stated()
    text = text.replace(old, table(rows)) if old else f"{text.rstrip()}\n\n{HEADING}\n{table(rows)}"
    DOC.write_text(text, encoding="utf-8")


async def _main() -> None:
    with tempfile.TemporaryDirectory(prefix="bas-cost-") as folder:
        valkey = Valkey(Path(folder))
        await valkey.start()
        try:
            write(await measure(valkey))
        finally:
            await valkey.stop()


if __name__ == "__main__":
    asyncio.run(_main())
