"""Wiring of the devices service."""

from bas.devices.v2 import devices_service_pb2
from chassis.api.paging import PageTokens
from chassis.cache.lease import Lives
from chassis.cache.readthrough import GroupReadThrough, LeaseReadThrough
from chassis.clock import Clock
from chassis.config import Config, Seconds
from chassis.module import Background, Parts, ServiceModule, ServiceSpec
from chassis.outbox.announcements import Announcements
from chassis.store.landing import Landings
from chassis.store.requests import RequestLog
from services.devices.filters import SCHEMA
from services.devices.heartbeats import Heartbeats
from services.devices.listing import DeviceLists
from services.devices.presence import Limits
from services.devices.registry import Registry
from services.devices.servicer import DeviceServicer
from services.devices.store import DeviceStore
from services.devices.sweep import Sweep
from services.devices.telemetry import TelemetrySnapshots
from services.devices.tracker import Tracker

NAME = "devices"


def build(config: Config, parts: Parts, *, presence_clock: Clock | None = None) -> ServiceModule:
    """The service. Presence runs by the cache server's clock, one for all replicas, unless given another."""
    cached = LeaseReadThrough(parts.cache, "dev", _lives(config, config.cache.device_ttl), parts.metrics)
    lists = GroupReadThrough(parts.cache, "dev:list", _lives(config, config.cache.list_ttl), parts.metrics)
    counts = GroupReadThrough(parts.cache, "dev:count", _lives(config, config.cache.count_ttl), parts.metrics)
    landings = Landings(parts.clock, parts.outbox)
    announcements = Announcements(NAME, parts.outbox, parts.clock, parts.random_bytes)
    store = DeviceStore(parts.store, cached, (lists, counts), landings, announcements, parts.clock)
    limits = _limits(config)
    heartbeats = Heartbeats(parts.cache, limits, watch_gap=_watch_gap(config), clock=presence_clock)
    telemetry = TelemetrySnapshots(parts.cache, config.cache.telemetry_ttl, parts.clock)
    tracker = Tracker(store, heartbeats, telemetry, landings, parts.clock, limits, parts.random_bytes)
    sweep = Sweep(heartbeats, store, parts.clock, limits, config.devices.sweep_interval, parts.metrics)
    tokens = PageTokens(parts.secret("devices page tokens"))
    servicer = DeviceServicer(
        store=store,
        registry=Registry(store, RequestLog(parts.store, parts.clock), parts.clock, parts.random_bytes),
        lists=DeviceLists(parts.store, lists, counts, tokens, parts.clock),
        tracker=tracker,
        telemetry=telemetry,
    )

    async def close() -> None:
        for owner in (landings, cached, lists, counts):
            await owner.close()

    return ServiceModule(
        name=NAME,
        descriptor=devices_service_pb2.DESCRIPTOR.services_by_name["DeviceService"],
        servicer=servicer,
        background=(Background("devices-sweep", sweep.run),),
        close=close,
    )


SPEC = ServiceSpec(NAME, build, SCHEMA)


def _lives(config: Config, ttl: Seconds) -> Lives:
    cache = config.cache
    return Lives(ttl=ttl, negative_ttl=cache.negative_ttl, lease_ttl=cache.lease_ttl, jitter=cache.jitter)


def _limits(config: Config) -> Limits:
    devices = config.devices
    return Limits(
        interval=round(devices.heartbeat_interval * 1000),
        offline_after=round(devices.offline_after * 1000),
        flush_interval=round(devices.flush_interval * 1000),
    )


def _watch_gap(config: Config) -> int:
    """How long nobody may have looked before heartbeats may be missing: what a device can be unheard for and still beat
    once more before it would be offline, and never less than it takes sweeps to come round."""
    devices = config.devices
    spare = devices.offline_after - 2 * devices.heartbeat_interval
    return round(1000 * max(2.0, spare, 3 * devices.sweep_interval))
