"""Wiring of the events service."""

from dataclasses import replace
from random import SystemRandom

from bas.events.v2 import events_service_pb2
from chassis.api.cursors import Cursors
from chassis.cache.client import open_cache
from chassis.clock import Clock
from chassis.config import Config, Redis
from chassis.module import Background, Parts, ServiceModule, ServiceSpec
from chassis.resilience.breaker import Guard
from services.events.fanout import Fanout
from services.events.feed import Feeds, RedisFeed
from services.events.limits import PublishLimits
from services.events.listing import EventLists
from services.events.publishing import Publisher
from services.events.servicer import EventServicer
from services.events.shards import Shards
from services.events.store import RedisEventLog, Retention
from services.events.sweep import Sweep

NAME = "events"

LOG = "events-log"
"""The dependency that the log is, to breakers."""

_SWEEPS_AN_AGE = 20
_SHORTEST_SWEEP, _LONGEST_SWEEP = 1.0, 60.0


def build(config: Config, parts: Parts, *, guard: Guard | None = None, log_clock: Clock | None = None) -> ServiceModule:
    """The service. `guard` is the breaker of the log, instead of the process's; `log_clock` the clock of retention, instead
    of the log server's, one for all replicas."""
    settings, random, server = config.events, SystemRandom().random, _server(config)
    connection = open_cache(server, parts.metrics, guard=guard or parts.guard(LOG), clock=parts.clock)
    shards = Shards(connection, settings.shards, parts.random_bytes)
    cursors = Cursors(parts.secret("events cursors"))
    feeds = Feeds(
        shards,
        lambda shard: RedisFeed(server.url, server.connect_timeout, shard),
        cursors,
        parts.clock,
        random,
    )
    log = RedisEventLog(shards, feeds.follow, cursors, Retention.of(settings), parts.clock, log_clock=log_clock)
    limits = PublishLimits(settings.publish_rate, settings.publish_bytes, parts.clock.monotonic)
    fanout = Fanout(log, settings, parts.clock, random, parts.metrics)
    interval = min(_LONGEST_SWEEP, max(_SHORTEST_SWEEP, settings.retention_age / _SWEEPS_AN_AGE))
    sweep = Sweep(log, settings.shards, interval, parts.clock, parts.metrics)
    servicer = EventServicer(Publisher(log, limits, parts.metrics), EventLists(log, cursors), fanout, cursors)
    return ServiceModule(
        name=NAME,
        descriptor=events_service_pb2.DESCRIPTOR.services_by_name["EventService"],
        servicer=servicer,
        background=(Background("events-sweep", sweep.run), *fanout.background),
        close=connection.close,
        drain=fanout.drain,
    )


SPEC = ServiceSpec(NAME, build)


def _server(config: Config) -> Redis:
    """Where the log is, with a client of its own: its operations are larger, and may take longer, than the cache's."""
    settings = config.events
    return replace(config.redis, url=settings.log_url or config.redis.url, op_timeout=settings.log_timeout)
