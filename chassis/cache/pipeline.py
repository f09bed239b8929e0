"""The hot path to the cache: every command of the process pipelined on one connection.

Held to redis-py's answers by tests/conformance/cache/test_pipeline_answers.py. Time-outs come from one timer; the
connection is made, watched and made again by one task.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final

import hiredis

from chassis.cache.address import Address
from chassis.cache.port import Arg, CacheUnavailable, Reply
from chassis.cache.wire import ReplyError, Wire
from chassis.clock import Clock, SystemClock
from chassis.telemetry.metrics import Metrics

_log: Final = logging.getLogger(__name__)

# What has arrived is read before anything is called late. A timer that itself comes late says that the loop was busy,
# perhaps before the command was even sent: that time is given back, up to one more time-out.
_GRACE: Final = 0.001
_LATE: Final = 0.5
"""Share of the time for an operation by which a timer may be late before that is the reason for what it finds."""
_STEADY: Final = 1.0
_REFUSED_CREDENTIALS: Final = frozenset({"WRONGPASS", "NOAUTH", "NOPERM"})


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds, but `waiting`: commands in flight at most; a further one is refused at once.

    `stalled_after` is how long the oldest command may go unanswered before the connection is given up.
    """

    operation: float = 0.010
    connect: float = 0.250
    stalled_after: float = 0.250
    backoff_base: float = 0.050
    backoff_cap: float = 1.0
    waiting: int = 4096


class OwnFault(CacheUnavailable):
    """Says nothing, or nothing new, of the server: this process's own bound, a loop that was late itself, or the same
    silence that another command has already told of."""


class PipelinedConnection:
    """Commands on one connection, each answered within `budget.operation` or CacheUnavailable.

    Constructing does no I/O. The first command starts the connecting task; commands before the first attempt has
    ended wait for it within their time-out, later ones fail at once while there is no connection. `run_id` is the
    connected server's, which changes when it restarts; None while there is none or it is not told.
    """

    def __init__(
        self,
        address: Address,
        metrics: Metrics,
        budget: Budget | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """`connected` is called each time that the server has answered on a new connection."""
        self._address = address
        self._budget = budget or Budget()
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()
        self._tell_connected = connected
        self._connected = metrics.gauge("bas_cache_connected", "1 while the hot cache connection is up.")
        self._events = metrics.counter("bas_cache_connection_events", "What happened to the connection.", ("event",))
        self._late = self._events.labels("operation_timeout")
        self._overflow = self._events.labels("overflow")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        self._early: list[tuple[bytes, asyncio.Future[Reply]]] = []
        self._attempted = False
        self._closed = False
        self._deadlines: deque[tuple[float, asyncio.Future[Reply]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._steps = 0
        self._trouble = ""
        self.run_id: str | None = None

    @property
    def up(self) -> bool:
        return self._wire is not None

    def execute(self, *words: Arg) -> "asyncio.Future[Reply]":
        """Send a command. Raises CacheUnavailable at once without a connection or over the bound; the future raises
        it, too, or ReplyError. Cancelling the future leaves the connection as it is."""
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub names a 1-tuple, it takes any
        loop = self._loop or self._open()
        wire = self._wire
        if wire is None or wire.lost.done():
            if self._attempted or len(self._early) >= self._budget.waiting:
                raise CacheUnavailable
            reply: asyncio.Future[Reply] = loop.create_future()
            self._early.append((packed, reply))
        else:
            if wire.full or len(wire.waiting) >= self._budget.waiting:
                self._overflow.inc()
                raise OwnFault("Too many cache operations wait for an answer.")
            reply = loop.create_future()
            wire.send(packed, reply)
        deadlines = self._deadlines
        while deadlines and deadlines[0][1].done():
            deadlines.popleft()
        due = loop.time() + self._budget.operation
        deadlines.append((due, reply))
        if self._timer is None:
            self._timer = loop.call_at(due, self._look_again)
        return reply

    async def close(self) -> None:
        """End the connection and its task; commands in flight fail. Closing twice is harmless."""
        self._closed = self._attempted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fail_early()

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise CacheUnavailable("The cache client is closed.")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._stay_connected(), name=f"cache connection {self._address}")
        return self._loop

    def _look_again(self) -> None:
        assert self._loop is not None  # noqa: S101 - the loop armed this timer
        now = self._loop.time()
        late = max(0.0, now - self._deadlines[0][0]) if self._deadlines else 0.0
        wait = _GRACE + min(late, self._budget.operation)
        self._timer = self._loop.call_later(wait, self._expire, late, now + wait)

    def _expire(self, late: float, due: float) -> None:
        """Fail what has waited too long. One silence, however many commands it meets, is one failure of the server, and
        none when the loop was so late that it could have missed the answer."""
        assert self._loop is not None  # noqa: S101 - the loop armed this timer
        self._timer = None
        now = self._loop.time()
        deadlines = self._deadlines
        told = max(late, now - due) > self._budget.operation * _LATE
        while deadlines and (deadlines[0][1].done() or deadlines[0][0] <= now - _GRACE):
            _, reply = deadlines.popleft()
            if not reply.done():
                self._late.inc()
                reply.set_exception((OwnFault if told else CacheUnavailable)("The cache did not answer in time."))
                told = True
        if deadlines:
            self._timer = self._loop.call_at(deadlines[0][0], self._look_again)

    async def _stay_connected(self) -> None:
        while True:
            try:
                wire = await self._connect()
            except (OSError, TimeoutError, ReplyError, CacheUnavailable) as problem:
                self._failed(problem)
            else:
                since = self._clock.monotonic()
                await self._serve(wire)
                if self._clock.monotonic() - since > _STEADY:
                    self._steps = 0
            await self._clock.sleep(self._backoff())

    async def _serve(self, wire: Wire) -> None:
        self._wire, self._attempted, self._trouble = wire, True, ""
        self._connected.set(1)
        self._events.labels("connected").inc()
        self._tell_connected()
        _log.info("The cache at %s is connected.", self._address)
        early, self._early = self._early, []
        for packed, reply in early:
            if not reply.done():
                wire.send(packed, reply)
        try:
            await self._watch(wire)
        finally:
            self._wire = self.run_id = None
            self._connected.set(0)
            wire.end("closed")
        why = wire.lost.result()
        self._events.labels(why).inc()
        _log.warning("The connection to the cache at %s has ended: %s.", self._address, why)

    async def _watch(self, wire: Wire) -> None:
        """Return once the connection has ended; end it when a command has been waiting for too long."""
        seen: asyncio.Future[Reply] | None = None
        while not wire.lost.done():
            await asyncio.wait((wire.lost,), timeout=self._budget.stalled_after)
            oldest = wire.waiting[0] if wire.waiting else None
            # The same command at the head at two looks: nothing at all was answered in between.
            if oldest is not None and oldest is seen:
                wire.end("stalled")
            seen = oldest

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        wire = Wire(loop)
        address = self._address
        try:
            async with asyncio.timeout(self._budget.connect):
                if address.path:
                    await loop.create_unix_connection(lambda: wire, address.path)
                else:
                    tls = address.tls_context()
                    await loop.create_connection(lambda: wire, address.host, address.port, ssl=tls)
                await self._greet(wire)
        except BaseException:
            wire.end("not connected")
            raise
        return wire

    async def _greet(self, wire: Wire) -> None:
        address = self._address
        commands: list[tuple[Arg, ...]] = []
        if address.password:
            user = (address.username,) if address.username else ()
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        # PING is refused while the server still reads its data; INFO is not.
        commands += [("PING",), ("INFO", "server")]
        loop = asyncio.get_running_loop()
        replies: list[asyncio.Future[Reply]] = []
        for command in commands:
            replies.append(loop.create_future())
            wire.send(hiredis.pack_command(command), replies[-1])  # type: ignore[arg-type]  # as above
        answers = await asyncio.gather(*replies, return_exceptions=True)
        for answer in answers[:-1]:
            if isinstance(answer, BaseException):
                raise answer
        self.run_id = _run_id(answers[-1])

    def _failed(self, problem: Exception) -> None:
        self._attempted = True
        self._fail_early()
        if isinstance(problem, ReplyError):
            event = "credentials_refused" if problem.code in _REFUSED_CREDENTIALS else "refused"
        elif isinstance(problem, ssl.SSLError):
            event = "tls"
        else:
            event = "unreachable"
        self._events.labels(event).inc()
        trouble = f"{event}: {str(problem) or type(problem).__name__}"
        # Once for each kind of trouble: attempts go on for as long as it lasts.
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("The cache at %s cannot be used (%s); reads go to the store.", self._address, trouble)

    def _fail_early(self) -> None:
        early, self._early = self._early, []
        for _, reply in early:
            if not reply.done():
                reply.set_exception(CacheUnavailable())

    def _backoff(self) -> float:
        """Half to all of an exponentially growing time: replicas do not come back together."""
        longest = min(self._budget.backoff_cap, self._budget.backoff_base * 2.0**self._steps)
        self._steps = min(self._steps + 1, 16)
        return longest * (0.5 + 0.5 * self._random.random())


def _run_id(info: "Reply | BaseException") -> str | None:
    """`run_id` of INFO's answer, its first 64 random bits: it is a part of many keys, whose memory it takes. None where it
    is forbidden: resources that need it are then not cached."""
    if isinstance(info, bytes):
        for line in info.splitlines():
            if line.startswith(b"run_id:"):
                return line[7:23].decode()
    return None
