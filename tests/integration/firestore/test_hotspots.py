"""No document of the design is written more than once a second, whatever the load: Firestore sustains about that much.

What one caller does to one device as often as he likes is left out: every device is created once and updated once. The
server's clock is moved on between the parts, so that a device's creation and its first heartbeat are not one second.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

import pytest

from bas.devices.v2.devices_pb2 import Device
from chassis.clock import FakeClock
from tests.firestore_server import FirestoreServer
from tests.integration.devices import calls
from tests.integration.devices.conftest import CountingStore, Devices, acting, replica
from tests.support.firestore_store import connected, deployed
from tests.support.valkey import Valkey

FLEET = 60
CALLERS = 32
TENANTS = ("acme", "umbra", "soylent")


@pytest.fixture
async def server() -> AsyncIterator[FirestoreServer]:
    async with deployed() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    """The service's and the cache's: a minute for the flushes passes at once."""
    return FakeClock()


@pytest.fixture
async def devices(server: FirestoreServer, valkey: Valkey, clock: FakeClock) -> AsyncIterator[Devices]:
    async with connected(server) as store, replica(CountingStore(store), valkey, clock, presence=clock) as made:
        yield made


def later(server: FirestoreServer) -> None:
    server.skew += timedelta(seconds=2)


async def everyone(devices: Devices, tenant: str, act: str, numbers: Iterable[int]) -> None:
    """CALLERS callers of the tenant share the devices among them."""
    left = iter(list(numbers))

    async def caller() -> None:
        for number in left:
            if act == "create":
                await calls.create(devices, f"d{number}", request_id=f"r{number}")
            elif act == "update":
                await calls.update(devices, Device(device_id=f"d{number}", display_name=f"n{number}"), "display_name")
            else:
                await calls.beat(devices, f"d{number}", "boot", int(act))

    with acting(tenant):
        await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def test_no_document_is_written_twice_in_a_second(
    devices: Devices, server: FirestoreServer, clock: FakeClock
) -> None:
    fleet = range(FLEET)
    await asyncio.gather(*(everyone(devices, tenant, "create", fleet) for tenant in TENANTS))
    for sequence in (1, 2, 3, 4):
        later(server)
        for tenant in TENANTS:  # each device twice in this round, and it is news only once
            await asyncio.gather(*(everyone(devices, tenant, str(sequence), fleet) for _ in range(2)))
        await clock.advance(31)
    later(server)
    await everyone(devices, "acme", "update", fleet)
    later(server)
    await asyncio.gather(
        everyone(devices, "acme", "create", range(FLEET, 2 * FLEET)),
        everyone(devices, "acme", "9", fleet),
        everyone(devices, "umbra", "update", fleet),
    )
    assert server.counts.writes > 5 * FLEET
    assert server.counts.hottest()[1] == 1, server.counts.hottest()


async def test_a_hot_document_would_be_seen(devices: Devices, server: FirestoreServer) -> None:
    with acting("acme"):
        await calls.create(devices)
        for name in ("one", "two"):
            await calls.update(devices, Device(device_id="d1", display_name=name), "display_name")
    name, writes = server.counts.hottest()
    assert name.endswith("/tenants/acme/devices/d1")
    assert writes == 3
