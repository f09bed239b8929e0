"""The real EventLog over a real server, as one process of the service has it."""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis.api.cursors import Cursors
from chassis.cache.client import open_cache
from chassis.clock import Clock, SystemClock
from chassis.config import Events, Seconds
from chassis.telemetry.metrics import Metrics
from services.events.feed import Feeds, RedisFeed
from services.events.shards import Shards
from services.events.store import RedisEventLog, Retention
from tests.support import patience
from tests.support.event_log import SECRET


@asynccontextmanager
async def redis_event_log(
    url: str,
    settings: Events | None = None,
    *,
    clock: Clock | None = None,
    log_clock: Clock | None = None,
    op_timeout: float = 10.0,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[RedisEventLog]:
    """`op_timeout` is for tests in which the server stalls. Four shards, unless the settings say."""
    settings = settings or Events(shards=4)
    connection = open_cache(patience.cache_at(url, op_timeout), Metrics())
    shards = Shards(connection, settings.shards, random_bytes)
    cursors = Cursors(SECRET)
    feeds = Feeds(shards, lambda shard: RedisFeed(url, 10.0, shard), cursors, SystemClock(), random.random)
    try:
        yield RedisEventLog(
            shards, feeds.follow, cursors, Retention.of(settings), clock or SystemClock(), log_clock=log_clock
        )
    finally:
        await connection.close()


def settings(
    *, count: int = 10_000, age: float = 86400.0, window: float = 7200.0, size: int = 32 * 1024 * 1024
) -> Events:
    return Events(
        shards=4,
        retention_count=count,
        retention_age=Seconds(age),
        dedupe_window=Seconds(window),
        retention_bytes=size,
    )
