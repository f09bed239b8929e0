import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.clock import FakeClock
from launcher.backoff import Backoff
from launcher.supervisor import PartError, Supervisor


class Puppet:
    """A part whose ends are decided by the test."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.starts = 0
        self.fails_to_start = False
        self.stopped_with: float | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        if self.fails_to_start:
            raise PartError("no binary")
        self.starts += 1
        self._ended = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace: float) -> None:
        self.stopped_with = grace

    def end(self, code: int) -> None:
        self._ended.set_result(code)


class Stage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.said: list[str] = []
        self.supervisor = Supervisor(
            clock=self.clock, backoff=Backoff(random=lambda: 1.0, first=1.0, longest=8.0), say=self.said.append
        )


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.supervisor.stop(tuple(stage.supervisor.restarts), grace=0)


async def test_what_ends_is_started_again_after_a_pause(stage: Stage) -> None:
    part = Puppet("devices")
    await stage.supervisor.add(part)
    part.end(-9)
    await stage.clock.advance(0.9)
    assert part.starts == 1
    await stage.clock.advance(0.1)
    assert part.starts == 2
    assert stage.supervisor.restarts == {"devices": 1}
    assert stage.said == ["devices was ended by signal 9; starting it again in 1.0 s"]


async def test_the_pauses_grow_to_a_bound_and_nothing_is_given_up(stage: Stage) -> None:
    part = Puppet("devices")
    await stage.supervisor.add(part)
    for _ in range(6):
        part.end(1)
        await stage.clock.advance(8.0)
    assert part.starts == 7
    assert [line.rpartition(" in ")[2] for line in stage.said] == [f"{s:.1f} s" for s in (1, 2, 4, 8, 8, 8)]


async def test_a_long_run_makes_the_pause_short_again(stage: Stage) -> None:
    part = Puppet("devices")
    await stage.supervisor.add(part)
    for _ in range(3):
        part.end(1)
        await stage.clock.advance(4.0)
    await stage.clock.advance(30.0)
    part.end(1)
    await stage.clock.advance(1.0)
    assert stage.said[-1].endswith("in 1.0 s")
    assert part.starts == 5


async def test_a_restart_that_fails_is_tried_again(stage: Stage) -> None:
    part = Puppet("valkey")
    await stage.supervisor.add(part)
    part.fails_to_start = True
    part.end(1)
    await stage.clock.advance(1.0)
    assert stage.said[-1] == "valkey did not start (no binary); starting it again in 2.0 s"
    part.fails_to_start = False
    await stage.clock.advance(2.0)
    assert part.starts == 2


async def test_the_first_start_that_fails_is_the_callers_to_know(stage: Stage) -> None:
    part = Puppet("valkey")
    part.fails_to_start = True
    with pytest.raises(PartError):
        await stage.supervisor.add(part)


async def test_a_wrong_configuration_is_told_apart_from_a_crash(stage: Stage) -> None:
    crashing, refusing = Puppet("gateway"), Puppet("devices")
    await stage.supervisor.add(crashing)
    await stage.supervisor.add(refusing)
    refused = asyncio.create_task(stage.supervisor.refused())
    crashing.end(1)
    await stage.clock.advance(0.5)
    assert not refused.done()
    refusing.end(2)
    await stage.clock.advance(0.5)
    assert refused.done()
    assert refused.result() == "devices"


async def test_what_is_stopped_stays_stopped(stage: Stage) -> None:
    stopped, other = Puppet("gateway"), Puppet("devices")
    await stage.supervisor.add(stopped)
    await stage.supervisor.add(other)
    await stage.supervisor.stop(["gateway", "unknown"], grace=2.5)
    assert stopped.stopped_with == 2.5
    assert other.stopped_with is None
    stopped.end(0)
    other.end(-9)
    await stage.clock.advance(60.0)
    assert (stopped.starts, other.starts) == (1, 2)


async def test_a_part_that_waits_for_its_restart_is_not_started_while_stopping(stage: Stage) -> None:
    part = Puppet("devices")
    await stage.supervisor.add(part)
    part.end(1)
    await stage.clock.advance(0.5)
    await stage.supervisor.stop(["devices"], grace=1.0)
    await stage.clock.advance(60.0)
    assert part.starts == 1


def test_back_off_is_varied_down_to_half_and_never_overflows() -> None:
    low, high = Backoff(random=lambda: 0.0), Backoff(random=lambda: 1.0)
    assert (low.delay(1), high.delay(1)) == (0.05, 0.1)
    assert (low.delay(10_000), high.delay(10_000)) == (5.0, 10.0)
