"""The Cache port over Redis or Valkey: hot commands pipelined, everything else through redis-py."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from chassis import config
from chassis.cache.address import parse
from chassis.cache.pipeline import Budget, OwnFault, PipelinedConnection
from chassis.cache.port import Arg, CacheUnavailable, Reply, Script
from chassis.cache.wire import ReplyError
from chassis.clock import Clock, SystemClock
from chassis.resilience.breaker import AlwaysAdmit, Breaker, BreakerOpen, Guard
from chassis.telemetry.metrics import Metrics

# The server cannot serve, for reasons of its own: for the caller that is no different from a server that is away.
_SERVER_TROUBLE: Final = frozenset(
    {"LOADING", "OOM", "READONLY", "MISCONF", "MASTERDOWN", "BUSY", "NOREPLICAS", "NOAUTH", "NOPERM",
     "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "UNKILLABLE"}
)  # fmt: skip
_SLOW_TIMEOUT: Final = 5.0
_STALLED_AFTER: Final = 0.25


class CacheBreakerOpen(BreakerOpen, CacheUnavailable):
    """The cache was not asked."""


class CacheClient:
    """The Cache port. Constructing does no I/O; a cache that is away never delays a start."""

    def __init__(
        self,
        hot: PipelinedConnection,
        slow: "Redis",
        metrics: Metrics,
        guard: Guard | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._hot = hot
        self._slow = slow
        self._clock = clock or SystemClock()
        self._admit = (guard or AlwaysAdmit()).admit
        self._metrics = metrics
        self._observers: dict[str, Callable[[float, str], None]] = {}

    @property
    def epoch(self) -> str | None:
        """Names the server's run: changes when it restarts. None while it is away; then nothing strict is cached."""
        return self._hot.run_id

    async def get(self, key: str) -> bytes | None:
        return cast(bytes | None, await self._do("get", "GET", key))

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        return cast(list[bytes | None], await self._do("mget", "MGET", *keys))

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        milliseconds = round(ttl * 1000)
        if milliseconds < 1:
            raise ValueError(f"ttl is {ttl!r} seconds; at least a millisecond is needed")
        await self._do("set", "SET", key, value, "PX", milliseconds)

    async def delete(self, *keys: str) -> int:
        return cast(int, await self._do("delete", "DEL", *keys, always=True)) if keys else 0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Reply:
        try:
            return await self._do(script.name, "EVALSHA", script.sha, len(keys), *keys, *args, always=script.always)
        except ReplyError as problem:
            if problem.code != "NOSCRIPT":
                raise
        # EVAL runs it and makes the server know it, in one step: nothing can flush it in between.
        return await self._do(script.name, "EVAL", script.source, len(keys), *keys, *args, always=script.always)

    async def command(self, *words: Arg) -> Any:
        """A command that is not hot (INFO, CONFIG, SCAN, XRANGE …) through redis-py, in its reply types, within 5 s.

        Raises CacheUnavailable, or RuntimeError for an error of the command's own.
        """
        try:
            return await self._slow.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py's
        except ResponseError as problem:
            raise RuntimeError(str(problem)) from None
        except (RedisError, OSError, TimeoutError) as problem:
            raise CacheUnavailable from problem

    async def close(self) -> None:
        await self._hot.close()
        await self._slow.aclose()

    async def _do(self, operation: str, *words: Arg, always: bool = False) -> Reply:
        observe = self._observers.get(operation) or self._observer(operation)
        try:
            settle = self._admit()
        except BreakerOpen:
            if not always:
                raise
            settle = AlwaysAdmit().admit()
        started = self._clock.monotonic()
        outcome: str = "CANCELLED"
        answered: bool | None = None
        try:
            reply = await self._hot.execute(*words)
            outcome, answered = "ok", True
        except CacheUnavailable as problem:
            # A full pipeline, or a busy loop, says something of this process, not of the server.
            outcome, answered = problem.reason, None if isinstance(problem, OwnFault) else False
            raise
        except ReplyError as problem:
            outcome, answered = problem.code, problem.code not in _SERVER_TROUBLE
            if not answered:
                raise CacheUnavailable(f"The cache cannot serve: {outcome}.") from None
            raise
        finally:
            settle(answered)
            observe(self._clock.monotonic() - started, outcome)
        return reply

    def _observer(self, operation: str) -> Callable[[float, str], None]:
        observe = self._observers[operation] = self._metrics.operation("cache", operation)
        return observe


def open_cache(
    settings: config.Redis, metrics: Metrics, *, guard: Guard | None = None, clock: Clock | None = None
) -> CacheClient:
    """The client that the settings describe; nothing is connected yet. Raises ConfigError for a URL it cannot use.
    `guard` is its breaker, whose refusals are `CacheBreakerOpen`.

    One server, or one name that leads to the primary (a Sentinel-aware proxy, a managed endpoint). Scripts touch one
    hash tag each, so that Cluster needs only a connection a node here; it is not built.
    """
    if not settings.url:
        raise config.ConfigError("BAS_REDIS_URL is empty: `bas up` sets it to its embedded Valkey.")
    address = parse(settings.url)
    budget = Budget(
        operation=settings.op_timeout,
        connect=settings.connect_timeout,
        stalled_after=max(_STALLED_AFTER, 2 * settings.op_timeout),
    )
    # A lost connection fails all that was in flight, and opens the breaker; one that is made again has been answered on.
    connected = guard.look_again if isinstance(guard, Breaker) else _nothing
    hot = PipelinedConnection(address, metrics, budget, clock=clock, connected=connected)
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.pool,
        timeout=settings.pool_wait,
        socket_timeout=_SLOW_TIMEOUT,
        socket_connect_timeout=settings.connect_timeout,
        # Its default of ten retries made a dead server cost 4.4 s a call.
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return CacheClient(hot, Redis.from_pool(pool), metrics, guard, clock)


def _nothing() -> None:
    pass
