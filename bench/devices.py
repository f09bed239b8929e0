"""Devices through the front doors: gRPC and REST, hits and misses, writes and lists, beside the two baselines."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

from bas.devices.v2 import devices_pb2
from bas.devices.v2 import devices_service_pb2 as rpc
from bench import http
from bench.load import Call, Result, closed, paced
from bench.platform import GrpcCaller, HttpCaller, Platform
from bench.processes import Observed
from bench.report import Report

_SERVICE = "/bas.devices.v2.DeviceService/"
_HOT = 200
_CALLERS = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds of load for each row, and how many devices stand in the store."""

    seconds: float
    devices: int


def device(device_id: str) -> devices_pb2.Device:
    """A typical device: the same shape everywhere in the benchmark."""
    return devices_pb2.Device(
        device_id=device_id,
        display_name="Boiler 7, north wing",
        type="boiler",
        labels={"site": "north", "floor": "2", "owner": "facility"},
        metadata={"firmware": "4.11.2", "serial": "SN-00018822"},
    )


def get_request(device_id: str) -> bytes:
    return rpc.GetDeviceRequest(device_id=device_id).SerializeToString()


async def measured(run: Awaitable[Result], report: Report | None, name: str, servers: Sequence[Observed]) -> Result:
    """Run a load and report it with the CPU that each server used meanwhile."""
    before = {server.name: server.cpu() for server in servers}
    result = await run
    if report is not None:
        report.load(name, result, {server.name: server.cpu() - before[server.name] for server in servers})
    return result


async def seed(place: Platform, budget: Budget) -> None:
    """Fill the store with devices `d0…`, in batches."""
    caller = GrpcCaller(place.grpc_port, _SERVICE + "BatchCreateDevices", place.metadata)
    for first in range(0, budget.devices, 500):
        batch = [device(f"d{number}") for number in range(first, min(first + 500, budget.devices))]
        answer = await caller.call(0, rpc.BatchCreateDevicesRequest(devices=batch).SerializeToString())
        failed = [item for item in rpc.BatchCreateDevicesResponse.FromString(answer).results if item.HasField("error")]
        if failed:
            raise RuntimeError(f"seeding failed: {failed[0]}")
    await caller.close()


async def grpc_reads(place: Platform, report: Report, budget: Budget) -> Result:
    """GetDevice hits beside the bare echo, then misses. Returns the hits."""
    get = GrpcCaller(place.grpc_port, _SERVICE + "GetDevice", place.metadata)
    echo = GrpcCaller(place.echo_port, "/bench.Echo/Echo", place.metadata)
    hot = [get_request(f"d{number}") for number in range(_HOT)]
    for request in hot:
        await get.call(0, request)
    order = count()

    async def hit(number: int) -> None:
        await get.call(number, hot[next(order) % _HOT])

    async def bare(number: int) -> None:
        await echo.call(number, hot[next(order) % _HOT])

    # In turns, so that a neighbour's load on the machine falls on both.
    ratios, hits = [], None
    for turn in range(3):
        kept = report if turn == 2 else None
        base = await measured(
            closed(bare, callers=_CALLERS, seconds=budget.seconds),
            kept,
            "echo, bare grpc.aio, 64 callers",
            (place.echo,),
        )
        hits = await measured(
            closed(hit, callers=_CALLERS, seconds=budget.seconds),
            kept,
            "GetDevice hit, gRPC, 64 callers",
            (place.devices,),
        )
        ratios.append(hits.rate / base.rate)
    assert hits is not None
    report.at_least(
        "GetDevice hit / bare echo, throughput (median of 3)",
        sorted(ratios)[1],
        0.7,
        note=f"turns {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
    )
    await half(report, "GetDevice hit, gRPC", hit, hits.rate, 5.0, budget, (place.devices,))

    cold = count(_HOT)
    missed = budget.devices - _HOT

    async def miss(number: int) -> None:
        await get.call(number, get_request(f"d{_HOT + next(cold) % missed}"))

    # Every key is asked for once within its life, so each call is a miss: bounded by the number of devices.
    seconds = min(budget.seconds, missed / 4 / 4000)
    misses = await measured(
        closed(miss, callers=_CALLERS, seconds=seconds, warm=seconds / 5),
        report,
        "GetDevice miss, gRPC, 64 callers",
        (place.devices,),
    )
    await half(
        report, "GetDevice miss, gRPC", miss, misses.rate, 50.0, Budget(seconds, budget.devices), (place.devices,)
    )
    await get.close()
    await echo.close()
    return hits


async def rest_reads(place: Platform, report: Report, budget: Budget) -> None:
    """The same read by REST, beside the FastAPI endpoint; then what the gateway adds at low load."""
    ours, theirs = HttpCaller(place.http_port), HttpCaller(place.baseline_port)
    hot = [http.request("GET", f"/api/v2/devices/d{number}", "bench", place.token) for number in range(_HOT)]
    order = count()

    async def read(number: int) -> None:
        await ours.call(number, hot[next(order) % _HOT])

    async def plain(number: int) -> None:
        await theirs.call(number, hot[next(order) % _HOT])

    ratios, reads = [], None
    for turn in range(3):
        kept = report if turn == 2 else None
        base = await measured(
            closed(plain, callers=_CALLERS, seconds=budget.seconds),
            kept,
            "GET device, FastAPI baseline, 64 callers",
            (place.baseline, place.devices),
        )
        reads = await measured(
            closed(read, callers=_CALLERS, seconds=budget.seconds),
            kept,
            "GET device hit, REST, 64 callers",
            (place.gateway, place.devices),
        )
        ratios.append(reads.rate / base.rate)
    assert reads is not None
    report.at_least(
        "GET device, REST / FastAPI, throughput (median of 3)",
        sorted(ratios)[1],
        1.5,
        note=f"turns {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
    )
    await half(report, "GET device hit, REST", read, reads.rate, 5.0, budget, (place.gateway, place.devices))

    get = GrpcCaller(place.grpc_port, _SERVICE + "GetDevice", place.metadata, channels=1)
    direct_request = get_request("d0")

    async def direct(number: int) -> None:
        await get.call(number, direct_request)

    through = await closed(read, callers=1, seconds=budget.seconds)
    straight = await closed(direct, callers=1, seconds=budget.seconds)
    for share in (0.5, 0.99):
        added = (through.percentile(share) - straight.percentile(share)) * 1e3
        name = f"gateway overhead over direct gRPC, 1 caller, p{share * 100:.0f}"
        note = f"{through.percentile(share) * 1e3:.2f} against {straight.percentile(share) * 1e3:.2f} ms"
        report.below(name, added, 2.0, note=note)
    await get.close()
    ours.close()
    theirs.close()


async def writes_and_lists(place: Platform, report: Report, budget: Budget) -> None:
    """CreateDevice, ListDevices, CountDevices and Heartbeat."""
    numbers = count()
    create = GrpcCaller(place.grpc_port, _SERVICE + "CreateDevice", place.metadata)
    listing = GrpcCaller(place.grpc_port, _SERVICE + "ListDevices", place.metadata)
    counting = GrpcCaller(place.grpc_port, _SERVICE + "CountDevices", place.metadata)
    beating = GrpcCaller(place.grpc_port, _SERVICE + "Heartbeat", place.metadata)
    page = rpc.ListDevicesRequest(page_size=50).SerializeToString()
    everything = rpc.CountDevicesRequest().SerializeToString()

    async def new(number: int) -> None:
        await create.call(number, rpc.CreateDeviceRequest(device=device(f"n{next(numbers)}")).SerializeToString())

    async def pages(number: int) -> None:
        await listing.call(number, page)

    async def counts(number: int) -> None:
        await counting.call(number, everything)

    async def beat(number: int) -> None:
        beats = next(numbers)
        request = rpc.HeartbeatRequest(device_id=f"d{beats % _HOT}", boot_id="b", sequence=beats)
        await beating.call(number, request.SerializeToString())

    rows: tuple[tuple[str, Call, float | None], ...] = (
        ("CreateDevice, gRPC", new, 70.0),
        ("ListDevices first page of 50, gRPC", pages, 10.0),
        ("CountDevices, gRPC", counts, 10.0),
        ("Heartbeat, gRPC", beat, None),
    )
    for name, call, limit in rows:
        most = await measured(
            closed(call, callers=_CALLERS, seconds=budget.seconds), report, f"{name}, 64 callers", (place.devices,)
        )
        await half(report, name, call, most.rate, limit, budget, (place.devices,))
    for caller in (create, listing, counting, beating):
        await caller.close()


async def half(
    report: Report, name: str, call: Call, most: float, limit: float | None, budget: Budget, servers: Sequence[Observed]
) -> None:
    """The p99 (ms) at half of the most that went through; `limit` None where the mission sets none."""
    title = f"{name}, half of the most ({most / 2:.0f}/s)"
    result = await measured(paced(call, rate=most / 2, seconds=budget.seconds), None, title, servers)
    note = f"p50 {result.percentile(0.5) * 1e3:.2f} ms"
    note += f"; {result.errors} ERRORS" if result.errors else ""
    if limit is None:
        report.tells(f"{title}, p99", result.percentile(0.99) * 1e3, "ms", note)
    else:
        report.below(f"{title}, p99", result.percentile(0.99) * 1e3, limit, note=note)


Scenario = Callable[[Platform, Report, Budget], Awaitable[object]]
