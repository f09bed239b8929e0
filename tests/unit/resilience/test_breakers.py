"""What purgatory makes, names and tells of breakers, and what it does not decide."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from chassis.clock import FakeClock
from chassis.config import Breaker as Budget
from chassis.config import Seconds
from chassis.errors import ApiError, internal, not_found, unavailable
from chassis.resilience.breaker import BreakerOpen, State
from chassis.resilience.breakers import Breakers
from chassis.store.guarded import StoreBreakerOpen
from chassis.telemetry.metrics import Metrics

BUDGET = Budget(failures=3, window=Seconds(30), half_open_after=Seconds(15), probes=2, share=0.0)


@pytest.fixture(autouse=True)
def logged() -> Iterator[Any]:
    with capture_logs() as events:
        yield events


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.breakers = Breakers(BUDGET, self.clock, self.metrics)
        self.fails: BaseException | None = None

        async def report() -> str:
            if self.fails is not None:
                raise self.fails
            return "well"

        guarded = self.breakers.factory("reports", exclude=[(ApiError, lambda error: error.reason == "BUSY")])
        self.report = guarded(report)

    async def failing(self, failure: BaseException, times: int) -> None:
        self.fails = failure
        for _ in range(times):
            with pytest.raises(type(failure)):
                await self.report()
        self.fails = None

    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("bas_breaker_state", {"dependency": "reports"})

    def transitions(self, state: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "bas_breaker_transitions_total", {"dependency": "reports", "state": state}
        )


async def test_its_decorator_leads_to_the_breaker_of_that_name(logged: Any) -> None:
    rig = Rig()
    assert await rig.report() == "well"
    breaker = rig.breakers("reports")
    assert rig.gauge() == 0
    await rig.failing(unavailable("AWAY", "Away."), 3)
    assert (breaker.state, rig.gauge(), rig.transitions("open")) == (State.OPEN, 2, 1)
    with pytest.raises(BreakerOpen):
        await rig.report()
    await rig.clock.advance(15)
    assert await rig.report() == "well"
    assert (breaker.state, rig.gauge(), rig.transitions("half_open"), rig.transitions("closed")) == (
        State.CLOSED,
        0,
        1,
        1,
    )
    assert [(line["event"], line["log_level"], line["dependency"]) for line in logged] == [
        ("breaker open", "warning", "reports"),
        ("breaker half-open", "info", "reports"),
        ("breaker closed", "info", "reports"),
    ]


async def test_what_the_caller_did_wrong_and_its_leaving_count_for_nothing() -> None:
    rig = Rig()
    for failure in (not_found("device", "d1"), internal(), asyncio.CancelledError(), unavailable("BUSY", "Excluded.")):
        await rig.failing(failure, 5)
    assert rig.breakers("reports").state is State.CLOSED
    await rig.failing(ConnectionError(), 3)
    assert rig.breakers("reports").state is State.OPEN


async def test_a_breaker_is_made_once_and_closed_calls_cost_no_purgatory() -> None:
    breakers = Breakers(BUDGET, FakeClock(), Metrics())
    made = breakers("store", StoreBreakerOpen)
    assert breakers("store") is made
    assert breakers("cache") is not made
    assert made.budget == BUDGET
    assert (await breakers.factory.get_breaker("store")).context.state == "closed"
    for _ in range(3):
        made.admit()(False)
    assert (await breakers.factory.get_breaker("store")).context.state == "opened"
    with pytest.raises(StoreBreakerOpen):
        made.admit()


async def test_listeners_of_the_factory_are_told() -> None:
    rig, told = Rig(), list[tuple[str, str]]()

    def listen(name: str, what: str, _event: object) -> None:
        told.append((name, what))

    rig.breakers.factory.add_listener(listen)
    rig.breakers("other")
    await rig.failing(unavailable("AWAY", "Away."), 3)
    assert told == [
        ("other", "circuit_breaker_created"),
        ("reports", "circuit_breaker_created"),
        ("reports", "state_changed"),
    ]
    rig.breakers.factory.remove_listener(listen)
    await rig.clock.advance(15)
    await rig.report()
    assert len(told) == 3
