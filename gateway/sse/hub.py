"""All event streams of this process: what is followed upstream, who listens, and the one clock that serves them all."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bas.events.v2.events_service_pb2 import (
    END_REASON_DRAINING,
    END_REASON_OVERLOADED,
    END_REASON_SLOW_CONSUMER,
    EndReason,
    SubscribeEventsRequest,
)
from chassis.clock import Clock
from chassis.config import Gateway
from chassis.errors import ApiError
from chassis.interceptors.stream import StreamCall
from gateway.sse.authority import SESSION_EXPIRED, SESSION_REVOKED, SESSION_SOURCE, Authority
from gateway.sse.connection import SLOTS, Connection
from gateway.sse.frames import COMMENT, end_text, warning_text
from gateway.sse.joining import Joining, Start, TooSlow
from gateway.sse.measures import StreamMeasures
from gateway.sse.port import Transport
from gateway.sse.replay import Replay
from gateway.sse.source import Pass, Source
from gateway.sse.stream import Listener, Stream
from gateway.upstream import UnaryCall

_LOG: Final = logging.getLogger("bas.gateway.sse")
_LINGER: Final = 10.0
"""Seconds for which a stream is followed that nobody listens to: those who reconnect find its ring."""
_SILENCE: Final = 60.0
"""Seconds without a message, when one is due every 20 at least, after which a stream is opened anew."""
_LAST_WORD: Final = 5.0
"""Seconds for a client to take what it was sent last."""
_TICK: Final = 0.5
_OPENING: Final = 5.0
"""Seconds for a stream that nobody listened to before to be opened upstream."""
_LOOK: Final = 0.02
_DRAIN_STEPS: Final = 40
_DRAIN_SHARE: Final = 0.8
"""The part of the time for draining in which goodbyes are said."""

_SESSIONS: Final = SubscribeEventsRequest(
    types=[SESSION_EXPIRED, SESSION_REVOKED], source=SESSION_SOURCE
).SerializeToString(deterministic=True)


def canonical(asked: SubscribeEventsRequest) -> bytes:
    """What is followed, the same bytes for all who asked for the same."""
    return SubscribeEventsRequest(
        types=sorted(set(asked.types)), subject=asked.subject, source=asked.source
    ).SerializeToString(deterministic=True)


@dataclass(slots=True)
class _Followed:
    stream: Stream
    source: Source
    task: "asyncio.Task[None]"
    renew_at: float
    idle_since: float = 0.0


class Hub:
    """`subscribe` and `list_events` are the calls of the events service; `credential` is what both are made with, and is
    good for `life` seconds; `random` gives [0, 1)."""

    def __init__(
        self,
        config: Gateway,
        *,
        subscribe: StreamCall,
        list_events: UnaryCall,
        credential: Pass,
        life: float,
        clock: Clock,
        random: Callable[[], float],
        measures: StreamMeasures,
    ) -> None:
        self._config = config
        self._subscribe = subscribe
        self._credential = credential
        self._life = life
        self._clock = clock
        self._random = random
        self._measures = measures
        self._replay = Replay(list_events, credential)
        self._joining = Joining(self._replay, stall=config.stream_stall, clock=clock, measures=measures)
        self._authority = Authority(self._expel, clock=clock, random=random)
        self._followed: dict[tuple[str, bytes], _Followed] = {}
        self._streams: dict[Connection, Stream] = {}
        self._catching_up: set[Connection] = set()
        self._tenants: Counter[str] = Counter()
        self._watched: Counter[str] = Counter()
        self._closing: deque[tuple[float, Transport]] = deque()
        self._ending: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._tick = min(_TICK, config.stream_heartbeat / (2 * SLOTS))
        self._slot = 0
        self.draining = False

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def followed(self) -> int:
        """How many streams are followed upstream."""
        return len(self._followed)

    def full(self, tenant: str) -> bool:
        """Whether no more are taken: as many are there as may be, or all are about to end."""
        return (
            self.draining
            or len(self._streams) >= self._config.max_streams
            or self._tenants[tenant] >= self._config.tenant_streams
        )

    def retry(self, *, overloaded: bool = False) -> float:
        """After how many seconds a client should come back: by chance, and later where there are too many."""
        return self._config.stream_retry * (0.5 + self._random()) * (4.0 if overloaded else 1.0)

    async def open(self, tenant: str, request: bytes, cursor: str) -> tuple[Stream, Start]:
        """A stream, followed, and where in it a client begins that was at `cursor`. Whoever opens it calls `let_go` once.
        Raises ApiError; TimeoutError when nobody answers."""
        stream = self._follow(tenant, request)
        try:
            opened = stream.position is None
            if opened:
                await stream.moved(_OPENING)
            return stream, await self._joining.start(stream, cursor, opened=opened)
        except BaseException:
            self.let_go(stream)
            raise

    def let_go(self, stream: Stream) -> None:
        """One less wants it."""
        stream.users -= 1
        followed = self._followed.get((stream.tenant, stream.request))
        if followed is not None and stream.users == 0:
            followed.idle_since = self._clock.monotonic()

    def enter(self, connection: Connection, stream: Stream) -> None:
        """The connection is there, and is to be told of its end. It takes over the opener's hold on the stream."""
        self._streams[connection] = stream
        self._tenants[stream.tenant] += 1
        self._measures.connections.inc()
        if connection.session is not None:
            self._watch_sessions(stream.tenant)
        self._authority.watch(connection)

    async def serve(self, connection: Connection, stream: Stream, start: Start) -> None:
        """Bring a connection that has entered up to what happens now; returns when it has got there, or has ended."""
        self._catching_up.add(connection)
        try:
            await self._joining.join(stream, connection, start)
        except TooSlow as slow:
            self._measures.slow.labels("disconnect").inc()
            self.end(connection, END_REASON_SLOW_CONSUMER, slow.cursor)
        except ApiError:
            self.end(connection, END_REASON_OVERLOADED, "", retry=self.retry(overloaded=True))
        finally:
            self._catching_up.discard(connection)

    def lost(self, connection: Connection) -> None:
        """The client is gone."""
        connection.ended = True
        self._leave(connection)

    def next_slot(self) -> int:
        """The group for a new connection's heartbeats."""
        self._slot = (self._slot + 1) % SLOTS
        return self._slot

    def end(
        self, connection: Connection, reason: int, cursor: str, *, warn: bool = False, retry: float | None = None
    ) -> None:
        """Tell a connection that and why it ends, and from where to go on, and close it: at once if it takes that at once,
        and before long in any case."""
        if connection.ended:
            return
        connection.ended = True
        if not connection.transport.closing:
            words = end_text(reason, cursor, self.retry() if retry is None else retry)
            connection.write(warning_text(reason) + words if warn else words)
            connection.transport.close()
            self._closing.append((self._clock.monotonic() + _LAST_WORD, connection.transport))
        self._measures.ended.labels(EndReason.Name(reason).removeprefix("END_REASON_").lower()).inc()  # type: ignore[arg-type]  # an EndReason
        self._leave(connection)

    async def drain(self, seconds: float) -> None:
        """End all connections, spread over the time, in an order that says nothing; then stop following."""
        self.draining = True
        leaving = sorted(self._streams, key=lambda _: self._random())
        steps = min(_DRAIN_STEPS, len(leaving))
        begun = self._clock.monotonic()
        try:
            for step in range(steps):
                if not self._streams:
                    break
                for connection in leaving[step::steps]:
                    self._expel(connection, END_REASON_DRAINING)
                # To a moment, not for a time: on a busy machine being late would add up, until some are left without a word.
                moment = begun + seconds * _DRAIN_SHARE * (step + 1) / steps
                await self._clock.sleep(max(0.0, moment - self._clock.monotonic()))
            until = self._clock.monotonic() + seconds * (1 - _DRAIN_SHARE)
            while self._clock.monotonic() < until and not all(gone(transport) for _, transport in self._closing):
                await self._clock.sleep(_LOOK)
        finally:
            await self.close()

    async def close(self) -> None:
        """Drop every connection that is left, and all that runs."""
        self.draining = True
        for connection in tuple(self._streams):
            connection.transport.abort()
            self.lost(connection)
        for _, transport in self._closing:
            transport.abort()
        self._closing.clear()
        await self._replay.close()
        await self._authority.close()
        running = [*self._ending, *(followed.task for followed in self._followed.values())]
        self._followed.clear()
        if self._ticker is not None:
            running.append(self._ticker)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._measures.upstreams.set(0)

    def _expel(self, connection: Connection, reason: int, *, warn: bool = False) -> None:
        self.end(connection, reason, self._reached(connection), warn=warn)

    def _reached(self, connection: Connection) -> str:
        """The cursor after what the connection was sent; "" while that is within events of the past, whose ids say it."""
        stream = self._streams.get(connection)
        if stream is None or connection in self._catching_up:
            return ""
        if connection.conflation is not None:
            return connection.conflation.cursor
        stream.flush()
        return "" if connection.ended else stream.cursor

    def _leave(self, connection: Connection) -> None:
        stream = self._streams.pop(connection, None)
        if stream is None:
            return
        stream.remove(connection)
        self._tenants[stream.tenant] -= 1
        if not self._tenants[stream.tenant]:
            del self._tenants[stream.tenant]
        self._measures.connections.dec()
        self._authority.forget(connection)
        self.let_go(stream)
        if connection.session is not None:
            self._unwatch_sessions(stream.tenant)

    def _watch_sessions(self, tenant: str) -> None:
        self._watched[tenant] += 1
        if self._watched[tenant] == 1:
            self._listen_to_sessions(tenant)

    def _unwatch_sessions(self, tenant: str) -> None:
        self._watched[tenant] -= 1
        if not self._watched[tenant]:
            del self._watched[tenant]
            followed = self._followed.get((tenant, _SESSIONS))
            if followed is not None:
                self.let_go(followed.stream)

    def _listen_to_sessions(self, tenant: str) -> None:
        self._follow(tenant, _SESSIONS).listeners = [self._listener(tenant)]

    def _listener(self, tenant: str) -> Listener:
        return lambda logged: self._authority.heard(tenant, logged)

    def _follow(self, tenant: str, request: bytes) -> Stream:
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._run(), name="sse-hub")
        key = tenant, request
        followed = self._followed.get(key)
        if followed is None:
            stream = Stream(
                tenant,
                request,
                buffer=self._config.stream_buffer,
                clock=self._clock,
                measures=self._measures,
                end=self.end,
            )
            source = Source(stream, self._subscribe, self._credential, clock=self._clock, random=self._random)
            task = asyncio.create_task(source.follow(), name="sse-source")
            task.add_done_callback(lambda done: self._over(key, done))
            followed = self._followed[key] = _Followed(stream, source, task, self._renewal())
            self._measures.upstreams.inc()
        followed.stream.users += 1
        return followed.stream

    def _renewal(self) -> float:
        """When to go on with a new credential: within the last part of the half of its life for which it is good."""
        return self._clock.monotonic() + self._life * (0.3 + 0.15 * self._random())

    def _over(self, key: tuple[str, bytes], done: "asyncio.Task[None]") -> None:
        """A stream that is followed no more takes its listeners with it; they come back and try again."""
        followed = self._followed.get(key)
        if followed is None or followed.task is not done:
            return
        del self._followed[key]
        self._measures.upstreams.dec()
        if not done.cancelled() and done.exception() is not None:
            _LOG.error("an event stream of %s failed", key[0], exc_info=done.exception())
        for connection in [each for each, stream in self._streams.items() if stream is followed.stream]:
            self._expel(connection, END_REASON_OVERLOADED)

    async def _run(self) -> None:
        slot = 0
        while True:
            await self._clock.sleep(self._tick)
            slot = (slot + 1) % SLOTS
            try:
                self._turn(slot, self._clock.monotonic())
            except Exception:  # noqa: BLE001 - the outermost layer: one connection's trouble is not to stop the clock of all
                _LOG.exception("a turn of the event streams' clock failed")

    def _turn(self, slot: int, now: float) -> None:
        silence = self._config.stream_heartbeat - SLOTS * self._tick
        for followed in tuple(self._followed.values()):
            followed.stream.beat(slot, silence)
            self._tend(followed, now)
        for connection in self._catching_up:
            if connection.slot == slot and not connection.transport.closing and connection.waiting() == 0:
                connection.write(COMMENT)
        for tenant in [each for each in self._watched if (each, _SESSIONS) not in self._followed]:
            self._listen_to_sessions(tenant)
            self._authority.heard(tenant, None)
        self._authority.tick()
        while self._closing and (self._closing[0][0] <= now or gone(self._closing[0][1])):
            self._closing.popleft()[1].abort()

    def _tend(self, followed: _Followed, now: float) -> None:
        stream = followed.stream
        if stream.users == 0 and now - followed.idle_since >= _LINGER:
            del self._followed[stream.tenant, stream.request]
            self._measures.upstreams.dec()
            self._ending.add(followed.task)
            followed.task.add_done_callback(self._ending.discard)
            followed.task.cancel()
        elif now - stream.heard >= _SILENCE:
            stream.heard = now
            followed.source.reopen()
        elif now >= followed.renew_at:
            followed.renew_at = self._renewal()
            followed.source.reopen()


def gone(transport: Transport) -> bool:
    """Whether nothing waits any more for a connection that was closed."""
    return transport.closing and transport.get_write_buffer_size() == 0
