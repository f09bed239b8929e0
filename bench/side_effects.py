"""What it costs to tell of a change: an event in its commit, the relay, and the time until a browser has it."""

import asyncio
import re
import time
from itertools import count
from typing import Final

from bas.devices.v2.devices_service_pb2 import BatchCreateDevicesRequest, CreateDeviceRequest
from bench import http
from bench.devices import device, measured
from bench.events_place import Place
from bench.load import Call, Result, closed, paced
from bench.platform import GrpcCaller
from bench.report import Report

_SERVICE: Final = "/bas.devices.v2.DeviceService/"
_PATH: Final = "/api/v2/events/stream?types=device.created"
_SUBJECT: Final = re.compile(rb'"subject":"devices/([a-z0-9]+)"')
_CALLERS: Final = 32
_CHANGES: Final = 20.0
"""Changes a second, where latency is measured."""
_BATCH: Final = 500
_BATCHES: Final = 6
_SETTLE: Final = 0.5
_POLL: Final = 0.02
_WITHIN: Final = 20.0


async def side_effects(where: Place, report: Report, seconds: float) -> None:
    """All rows. `told` has an event in its commit, `plain` is the same change where no events service is deployed."""
    told = GrpcCaller(where.devices_port, _SERVICE + "CreateDevice", where.metadata)
    plain = GrpcCaller(where.plain_port, _SERVICE + "CreateDevice", where.metadata)
    numbers = count()

    def creating(caller: GrpcCaller) -> Call:
        async def create(number: int) -> None:
            request = CreateDeviceRequest(device=device(f"c{next(numbers)}"))
            await caller.call(number, request.SerializeToString())

        return create

    arriving = await _arriving(where, told, seconds)
    note = f"{_CHANGES:.0f} changes/s, {len(arriving.latencies)} events"
    for share in (0.5, 0.99):
        report.tells(
            f"change committed → event received, p{share * 100:.0f}", arriving.percentile(share) * 1e3, "ms", note
        )
    for name, caller, server in (
        ("without its event", plain, where.plain),
        ("with its event", told, where.devices),
    ):
        alone = await measured(
            closed(creating(caller), callers=1, seconds=seconds / 2),
            report,
            f"CreateDevice {name}, 1 caller",
            (server,),
        )
        del alone
        await measured(
            closed(creating(caller), callers=_CALLERS, seconds=seconds),
            report,
            f"CreateDevice {name}, {_CALLERS} callers",
            (server,),
        )
        await _delivered(where)
    await told.close()
    await plain.close()
    await _relay(where, report)


async def _arriving(where: Place, caller: GrpcCaller, seconds: float) -> Result:
    """From the answer to a change, when it is committed, to its event at a browser."""
    reader, writer = await asyncio.open_connection("127.0.0.1", where.gateway_port)
    writer.write(http.request("GET", _PATH, "bench", where.token))
    committed: dict[bytes, float] = {}
    received: dict[bytes, float] = {}

    async def read() -> None:
        left = b""
        while data := await reader.read(65536):
            left += data
            *events, left = left.split(b"\n\n")
            now = time.perf_counter()
            for event in events:
                found = _SUBJECT.search(event)
                if found:
                    received[found[1]] = now

    reading = asyncio.create_task(read())
    numbers = count()

    async def change(number: int) -> None:
        name = f"e{next(numbers)}"
        await caller.call(number, CreateDeviceRequest(device=device(name)).SerializeToString())
        committed[name.encode()] = time.perf_counter()

    await asyncio.sleep(_SETTLE)
    changed = await paced(change, rate=_CHANGES, seconds=seconds)
    end = time.perf_counter() + _WITHIN
    while len(received) < len(committed) and time.perf_counter() < end:  # noqa: ASYNC110 - bounded, and over at once
        await asyncio.sleep(_POLL)
    reading.cancel()
    writer.close()
    late = sorted(max(0.0, received[name] - at) for name, at in committed.items() if name in received)
    return Result(late, changed.seconds, len(committed) - len(received))


async def _relay(where: Place, report: Report) -> None:
    """Many changes at once, and how long the relay takes for their events."""
    caller = GrpcCaller(where.devices_port, _SERVICE + "BatchCreateDevices", where.metadata)
    before, used = await _count(where), (where.devices.cpu(), where.events.cpu())
    begin = time.perf_counter()
    for batch in range(_BATCHES):
        devices = [device(f"b{batch}x{number}") for number in range(_BATCH)]
        await caller.call(0, BatchCreateDevicesRequest(devices=devices).SerializeToString())
    written, spent = time.perf_counter() - begin, where.devices.cpu() - used[0]
    amount = _BATCH * _BATCHES
    end = begin + _WITHIN
    while (done := await _count(where) - before) < amount and time.perf_counter() < end:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(_POLL)
    seconds = time.perf_counter() - begin
    cpu = where.devices.cpu() - used[0], where.events.cpu() - used[1]
    note = (
        f"{done:.0f} of {amount} changes in batches of {_BATCH}, which took {written:.2f} s; CPU us/effect, the changes"
    )
    note += f" in it: devices {cpu[0] / amount * 1e6:.0f} ({spent / amount * 1e6:.0f} until all were committed)"
    note += f", events {cpu[1] / amount * 1e6:.0f}"
    report.tells("outbox, effects delivered", done / seconds, "/s", note)
    await caller.close()


async def _delivered(where: Place) -> None:
    """Return once nothing more is delivered."""
    before = -1.0
    while before != (now := await _count(where)):
        before = now
        await asyncio.sleep(_SETTLE)


async def _count(where: Place) -> float:
    """Effects that the devices service has delivered so far."""
    connection = await http.connect("127.0.0.1", where.devices_metrics)
    try:
        _, body = await asyncio.wait_for(connection.send(http.request("GET", "/metrics", "bench", "none")), _WITHIN)
    finally:
        connection.close()
    lines = [line for line in body.decode().splitlines() if line.startswith("bas_outbox_effects_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'outcome="delivered"' in line)
