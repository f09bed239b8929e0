"""The tests of devices are able to fail: services with one bug each, and the test that catches it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bas.devices.v2.devices_pb2 import Device
from bas.devices.v2.devices_service_pb2 import BatchCreateDevicesResult
from chassis.api import paging
from chassis.api.filter_spec import Compiled
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.port import Committed, Document, Key, Query, Write
from services.devices import device as rules
from services.devices import listing, registry, scripts
from services.devices import telemetry as snapshots
from tests.integration.devices import test_batches, test_listing, test_resources, test_telemetry
from tests.integration.devices.conftest import CountingStore, Devices, replica
from tests.support.valkey import Valkey

ONE = "everybody"


class ForgetsTheTenant(CountingStore):
    """A store whose keys are without the tenant; what it answers looks as asked for."""

    async def get(self, key: Key) -> Document | None:
        found = await super().get(replace(key, tenant=ONE))
        return None if found is None else replace(found, key=key)

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return [await self.get(key) for key in keys]

    async def query(self, query: Query) -> list[Document]:
        return await super().query(replace(query, tenant=ONE))

    async def count(self, query: Query) -> int:
        return await super().count(replace(query, tenant=ONE))

    async def commit(self, writes: Sequence[Write]) -> Committed:
        return await super().commit([replace(each, key=replace(each.key, tenant=ONE)) for each in writes])


async def own(devices: Devices) -> Devices:
    return await test_listing.fleet.__wrapped__(devices)  # type: ignore[attr-defined,no-any-return]  # the fixture's function


# A test that fails between its calls leaves those behind that it has not awaited.
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "test",
    [
        test_resources.test_another_tenants_device_is_missing_in_the_same_words,
        lambda devices: test_resources.test_no_two_tenants_share_a_key(devices, ("a.b", "c", "a", "c")),
        test_telemetry.test_it_goes_with_its_device_and_tenant,
        lambda devices: _in_a_fleet(devices, test_listing.test_tenants_see_their_own),
    ],
)
async def test_a_store_that_forgets_the_tenant_is_caught(
    store: CountingStore, valkey: Valkey, test: Callable[[Devices], Awaitable[None]]
) -> None:
    async with replica(ForgetsTheTenant(store), valkey, SystemClock()) as devices:
        await caught(devices, test)


async def _in_a_fleet(devices: Devices, test: Callable[..., Awaitable[None]], *more: Any) -> None:
    await test(await own(devices), *more)


async def caught(devices: Devices, test: Callable[[Devices], Awaitable[None]]) -> None:
    with devices.tenant("acme"), pytest.raises((AssertionError, pytest.fail.Exception, ApiError)):
        await test(devices)


def _first_page_only(_: Any, __: Any, token: str) -> None:
    """A cursor that leads to the beginning, but ends."""
    if token:
        raise AssertionError("the list never ends")


def _all(_: str) -> Compiled:
    return Compiled()


def _whole(current: Device, patch: Device, mask: Any) -> Device:
    """A mask that is not looked at."""
    changed = Device()
    changed.CopyFrom(current)
    changed.MergeFrom(patch)
    return changed


BUGS: dict[str, tuple[Any, str, Any, Callable[[Devices], Awaitable[None]]]] = {
    "no status an item": (registry, "_result", lambda _: BatchCreateDevicesResult(device=Device()),
                          test_batches.test_each_fails_by_itself),
    "items not validated": (registry.Registry, "_refused", lambda *_: None, test_batches.test_each_fails_by_itself),
    "readings without value": (snapshots, "_complete", lambda readings: readings,
                               test_telemetry.test_a_reading_has_a_value),
    "older readings win": (scripts, "REPORT",
                           replace(scripts.REPORT, source=scripts.REPORT.source.replace("<= ARGV[i + 1]", ">= ''")),
                           test_telemetry.test_an_older_reading_does_not_replace_a_newer),
    "filter not looked at": (listing, "compile_filter", _all, lambda devices: _in_a_fleet(
        devices, test_listing.test_filters, "type = boiler", range(0, 12, 2))),
    "paging begins again": (paging.PageTokens, "read", _first_page_only, lambda devices: _in_a_fleet(
        devices, test_listing.test_orders, "device_id", range(12), 5)),
    "mask not looked at": (rules, "apply_update", _whole,
                           test_resources.TestUpdate().test_the_mask_says_what_changes),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
async def test_the_bug_is_caught(devices: Devices, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    where, name, instead, test = BUGS[bug]
    monkeypatch.setattr(where, name, instead)
    await caught(devices, test)


@pytest.mark.parametrize("bug", BUGS)
async def test_without_the_bug_it_passes(devices: Devices, bug: str) -> None:
    await BUGS[bug][3](devices)
