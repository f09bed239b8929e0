"""The only maker of a process: components started in order, served until a signal, stopped in reverse, nothing left."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import structlog

from chassis.clock import Clock
from chassis.health import SERVING
from chassis.module import Background, ServiceModule
from chassis.server import GrpcServer

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RESTART_FIRST: Final = 0.1
_RESTART_LONGEST: Final = 30.0
_SETTLED: Final = 60.0
"""A loop that ran this long before it failed starts again at the shortest wait."""
_CLOSE: Final = 2.0
"""Seconds for each thing to close; what takes longer is left to the end of the process."""


class Component(Protocol):
    """A part of a process. `start` returns once it works and cleans up after itself if it raises; `stop` returns once
    nothing of it is left, and is bounded in time."""

    @property
    def name(self) -> str: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main` on the fastest event loop there is, with as many open files as the system lets a process have."""
    _raise_open_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


async def run_until_signal(
    components: Sequence[Component],
    *,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Start `components` in order, call `ready`, wait for SIGTERM, SIGINT or `stop`, then stop them in reverse.

    One that fails to start stops those before it and is raised. Stopping is bounded, so a further signal changes
    nothing.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    log = structlog.get_logger("bas.runtime")

    def on_signal(number: int) -> None:
        stop.set()
        log.info("stopping", signal=signal.Signals(number).name)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    started: list[Component] = []
    try:
        for component in components:
            if stop.is_set():
                break
            await component.start()
            started.append(component)
        if ready is not None and not stop.is_set():
            ready()
        await stop.wait()
    finally:
        stop.set()
        for component in reversed(started):
            await _quietly(component.stop, f"stop of {component.name}")
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class Services:
    """The component that serves `modules` on `server`: warms them up, reports SERVING, runs their background loops.

    `closing` is what the modules were built on (stores, caches), closed after them, in order.
    """

    def __init__(
        self,
        name: str,
        modules: Iterable[ServiceModule],
        server: GrpcServer,
        *,
        clock: Clock,
        random: Callable[[], float],
        closing: Iterable[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.name = name
        self._modules = tuple(modules)
        self._server = server
        self._clock = clock
        self._random = random
        self._closing = tuple(closing)
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen, warm up, and only then report SERVING."""
        try:
            await self._server.start()
            for module in self._modules:
                if module.warm is not None:
                    await module.warm()
        except BaseException:
            await self.stop()
            raise
        for module in self._modules:
            for background in module.background:
                self._loops.append(asyncio.create_task(self._keep_running(background), name=background.name))
        self._server.health.set_all(SERVING)

    async def stop(self) -> None:
        """Drain the calls, end the loops, close the modules and what they stand on."""
        self._server.health.stop()
        for module in self._modules:
            if module.drain is not None:
                await _quietly(module.drain, f"drain of {module.name}", _CLOSE)
        await _quietly(self._server.stop, "drain")
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=_CLOSE)
        for module in self._modules:
            if module.close is not None:
                await _quietly(module.close, f"close of {module.name}", _CLOSE)
        for close in self._closing:
            await _quietly(close, "close", _CLOSE)

    async def _keep_running(self, background: Background) -> None:
        """Run a loop for as long as the process serves: a failure is logged, and after a jittered wait it runs again."""
        log = structlog.get_logger("bas.background").bind(loop=background.name)
        wait = _RESTART_FIRST
        while True:
            begun = self._clock.monotonic()
            try:
                await background.run()
                log.error("loop ended by itself")
            except Exception:  # the owner of the task: whatever it was, the loop goes on
                log.exception("loop failed")
            if self._clock.monotonic() - begun >= _SETTLED:
                wait = _RESTART_FIRST
            await self._clock.sleep(wait * (0.5 + self._random()))
            wait = min(wait * 2, _RESTART_LONGEST)


async def _quietly(close: Callable[[], Awaitable[None]], what: str, within: float | None = None) -> None:
    """Await `close()`; its failure is logged, and does not keep the rest from being closed."""
    try:
        async with asyncio.timeout(within):
            await close()
    except Exception as failure:  # noqa: BLE001 - whatever it was, the rest must be closed, too
        structlog.get_logger("bas.runtime").error("not stopped cleanly", what=what, exc_info=failure)


def _raise_open_files() -> None:
    """Each connection is a file, and the usual soft limit of 1024 stands for programs that use select()."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not there on every system

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not there on every system

        return uvloop.new_event_loop
    return None
