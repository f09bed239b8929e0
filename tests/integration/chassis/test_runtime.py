"""A process: components in order, background loops owned, stopped by a signal, nothing left."""

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from chassis import runtime
from chassis.auth.keys import KeySet
from chassis.clock import FakeClock
from chassis.config import Grpc
from chassis.health import NOT_SERVING, SERVING
from chassis.module import Background, ServiceModule
from chassis.runtime import Services, run_until_signal
from chassis.telemetry.metrics import Metrics
from tests.integration.chassis.conftest import make_server
from tests.support import echo
from tests.support.eventually import eventually


class Part:
    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name = name
        self._log = log
        self._fails = fails

    async def start(self) -> None:
        if self._fails == "start":
            raise RuntimeError(self.name)
        self._log.append(f"start {self.name}")

    async def stop(self) -> None:
        self._log.append(f"stop {self.name}")
        if self._fails == "stop":
            raise RuntimeError(self.name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_in_reverse(number: signal.Signals) -> None:
    log: list[str] = []
    parts = [Part("a", log), Part("b", log, fails="stop"), Part("c", log)]
    async with asyncio.timeout(30):
        await run_until_signal(parts, ready=lambda: os.kill(os.getpid(), number))
    assert log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_one_that_cannot_start_stops_those_before_it() -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError, match="b"):
        await run_until_signal([Part("a", log), Part("b", log, fails="start"), Part("c", log)])
    assert log == ["start a", "stop a"]


async def test_a_stop_event_does_what_a_signal_does() -> None:
    log: list[str] = []
    stop = asyncio.Event()
    await run_until_signal([Part("a", log)], ready=stop.set, stop=stop)
    assert log == ["start a", "stop a"]


async def test_the_handlers_of_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = asyncio.Event()
    await run_until_signal([], ready=stop.set, stop=stop)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_fast_loop_runs_where_there_is_one() -> None:
    async def kind() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert runtime.run(kind()) == "uvloop"


def services(
    held: KeySet,
    clock: FakeClock,
    *,
    background: tuple[Background, ...] = (),
    warm: Callable[[], Awaitable[None]] | None = None,
    close: Callable[[], Awaitable[None]] | None = None,
    closing: tuple[Callable[[], Awaitable[None]], ...] = (),
) -> tuple[Services, echo.Echo]:
    servicer = echo.Echo()
    server = make_server(servicer, held, Metrics(), config=Grpc())
    module = ServiceModule("echo", echo.DESCRIPTOR, servicer, background, warm, close)
    made = Services("echo", [module], server, clock=clock, random=lambda: 0.5, closing=closing)
    return made, servicer


async def test_serving_is_said_after_the_warm_up_and_not_serving_when_it_stops(held: KeySet) -> None:
    warming, log = asyncio.Event(), list[str]()

    async def warm() -> None:
        await warming.wait()

    async def note(what: str) -> None:
        log.append(what)

    made, _ = services(
        held,
        FakeClock(),
        warm=warm,
        close=lambda: note("module"),
        closing=(lambda: note("store"), lambda: note("cache")),
    )
    starting = asyncio.create_task(made.start())
    await asyncio.sleep(0.05)
    assert made._server.health._status[echo.NAME] == NOT_SERVING
    warming.set()
    await starting
    assert made._server.health._status == {"": SERVING, echo.NAME: SERVING}
    await made.stop()
    assert made._server.health._status[echo.NAME] == NOT_SERVING
    assert log == ["module", "store", "cache"]


async def test_a_warm_up_that_fails_leaves_nothing(held: KeySet) -> None:
    async def warm() -> None:
        raise RuntimeError("cold")

    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    made, _ = services(held, FakeClock(), warm=warm, closing=(close,))
    with pytest.raises(RuntimeError, match="cold"):
        await made.start()
    assert closed.is_set()


async def test_a_loop_that_fails_runs_again_later_and_later(held: KeySet) -> None:
    clock, runs = FakeClock(), list[float]()

    async def fail() -> None:
        runs.append(clock.monotonic())
        raise RuntimeError("again")

    made, _ = services(held, clock, background=(Background("sweep", fail),))
    await made.start()
    await eventually(lambda: len(runs) == 1, "the loop has run")
    for wait in (0.1, 0.2, 0.4, 0.8):
        await clock.advance(wait)
    waits = [round(later - earlier, 3) for earlier, later in itertools.pairwise(runs)]
    assert waits == [0.1, 0.2, 0.4, 0.8]
    await clock.advance(300)
    assert max(later - earlier for earlier, later in itertools.pairwise(runs)) == pytest.approx(30)
    await made.stop()
    after = len(runs)
    await clock.advance(100)
    assert len(runs) == after


async def test_loops_are_cancelled_when_the_process_stops(held: KeySet) -> None:
    ended = asyncio.Event()

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    before = asyncio.all_tasks()
    made, _ = services(held, FakeClock(), background=(Background("relay", loop),))
    await made.start()
    await asyncio.sleep(0)
    await made.stop()
    assert ended.is_set()
    await eventually(
        lambda: not {t for t in asyncio.all_tasks() - before if t.get_name() == "relay"}, "no task is left"
    )
