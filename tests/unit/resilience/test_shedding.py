"""What is refused, at which lag of the event loop. Time is a number here; a loop that is really blocked is in
tests/integration/limits."""

import math

import pytest

from chassis.config import Seconds, Shed
from chassis.errors import Code
from chassis.policies import Policy
from chassis.resilience.shedding import FLOOR, Lane, Shedder, never_shed
from chassis.telemetry.metrics import Metrics

SETTINGS = Shed(lag=Seconds(0.010), after=Seconds(0.100))
READ, WRITE, HEALTH = Policy("devices:read"), Policy("devices:write"), Policy("")
EVERY = 0.05


class Loop:
    """Samples of one process."""

    def __init__(self, shed: Shed = SETTINGS, most: int = 2000) -> None:
        self.now = 100.0
        self.metrics = Metrics()
        self.shedder = Shedder(shed, most, self.metrics, lambda: 0.5)
        self.read = self.shedder.lane(READ, streams=False)
        self.write = self.shedder.lane(WRITE, streams=False)
        self.stream = self.shedder.lane(READ, streams=True)

    def late(self, seconds: float, by: float = 0.02) -> None:
        for _ in range(round(seconds / EVERY)):
            self.now += EVERY
            self.shedder.sample(by, self.now)

    def well(self, seconds: float) -> None:
        self.late(seconds, 0.001)

    def admits(self, lane: Lane, in_progress: int) -> bool:
        return in_progress + 1 <= lane.most


@pytest.mark.parametrize("by", [0.0, 0.010])
def test_a_loop_that_is_not_late_refuses_nothing(by: float) -> None:
    loop = Loop()
    loop.late(10, by)
    assert all(loop.admits(lane, 1999) for lane in (loop.read, loop.write, loop.stream))


def test_a_short_lag_refuses_nothing() -> None:
    loop = Loop()
    loop.shedder.in_progress = 1000
    for _ in range(20):
        loop.late(EVERY)
        loop.well(EVERY)
    assert loop.shedder.limit == 2000


def test_a_lasting_lag_lowers_what_is_admitted_by_steps_and_not_below_the_floor() -> None:
    loop = Loop()
    loop.shedder.in_progress = 1000
    loop.late(0.15)
    assert loop.shedder.limit == 800
    loop.late(0.15)
    assert loop.shedder.limit == 640
    loop.late(10)
    assert loop.shedder.limit == FLOOR
    assert loop.admits(loop.write, FLOOR - 1)
    assert not loop.admits(loop.read, FLOOR)


def test_one_long_pause_counts_as_the_time_that_it_took() -> None:
    loop = Loop()
    loop.shedder.in_progress = 500
    loop.shedder.sample(1.0, 101.0)
    assert loop.shedder.limit == 400


def test_writes_and_streams_are_refused_before_reads() -> None:
    loop = Loop()
    loop.shedder.in_progress = 1000
    loop.late(0.15)
    assert loop.admits(loop.read, 700)
    assert not loop.admits(loop.write, 700)
    assert loop.admits(loop.write, 300)
    assert not loop.admits(loop.stream, 0)


def test_what_is_refused_is_taken_again_when_the_lag_is_gone() -> None:
    loop = Loop()
    loop.shedder.in_progress = 1000
    loop.late(5)
    loop.well(0.9)
    assert not loop.admits(loop.stream, 0)
    loop.well(0.2)
    assert loop.admits(loop.stream, 0)
    assert FLOOR < loop.shedder.limit < 2000
    loop.well(13)
    assert loop.shedder.limit == 2000
    assert loop.admits(loop.write, 1999)


def test_health_is_never_refused() -> None:
    loop = Loop()
    loop.late(10)
    assert loop.shedder.lane(HEALTH, streams=False).most == math.inf
    assert loop.shedder.lane(HEALTH, streams=True).most == math.inf


def test_it_can_be_switched_off() -> None:
    loop = Loop(Shed(enabled=False))
    loop.late(10)
    assert loop.shedder.limit == 2000
    never = never_shed()
    never.sample(10.0, 100.0)
    assert all(never.lane(READ, streams=streams).most == math.inf for streams in (False, True))


def test_a_refusal_says_when_to_come_back_and_is_counted() -> None:
    loop = Loop()
    refusal = loop.shedder.refuse(loop.write)
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "OVERLOADED")
    assert refusal.retry_after == pytest.approx(0.2)
    sample = loop.metrics.registry.get_sample_value
    assert sample("bas_shed_refused_total", {"kind": "write"}) == 1
    assert sample("bas_shed_limit") == 2000


def test_a_server_of_few_calls_has_no_floor_above_them() -> None:
    loop = Loop(most=10)
    loop.late(10)
    assert loop.shedder.limit == 10
