"""Each check passes a history that keeps its promise, and fails one that does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos import checks
from tests.chaos.checks import Bounds, mark
from tests.chaos.history import Call, Follower, History, Look, Read, Told, Transition, Use, Write
from tests.integration.sessions.history import Revoke
from tests.integration.sessions.history import Use as Authentication

BOUNDS = Bounds(rate=10, burst=5, flooding="flood")
FAILED = "bas_cache_invalidations_total.failed"


def told(n: int, name: str = "", tenant: str = "acme") -> Told:
    return Told(tenant, name or f"e{n}", "d1", n, mark(tenant))


def read(n: int, began: float, tenant: str = "acme") -> Read:
    return Read(tenant, "d1", n, mark(tenant), "devices-2", began, began + 0.1)


def call(began: float = 10.0, took: float = 0.1, **more: object) -> Call:
    made = Call("GET devices", "gateway", "flood", began, began + took, 1.0, "OK")
    return replace(made, **more)  # type: ignore[arg-type]  # fields of Call


def good() -> History:
    """Three states of a device of which the second was not acknowledged, and all that goes with them."""
    history = History()
    history.writes = [
        Write("acme", "d1", 1, "devices-1", 10, acknowledged=11),
        Write("acme", "d1", 2, "devices-1", 12),
        Write("acme", "d1", 3, "devices-1", 14, acknowledged=15),
    ]
    history.looks["devices-1"] = [Look(at, 1, {"grpc_client_started_total": 100 * at}) for at in range(9, 40, 2)]
    history.reads = [read(1, 11.5), read(2, 12.5), read(3, 14.5), read(3, 16)]
    history.log["acme"] = [told(1), told(2), told(3)]
    history.followers = [Follower("acme", [told(1), told(2), told(3)])]
    history.calls = [call(10 + number / 10) for number in range(20)]
    history.attempts = {"chaos-1 /x": 3}
    history.transitions = [
        Transition("gateway", 1, "devices", state, at)
        for state, at in (("open", 1.0), ("half-open", 16.0), ("open", 16.5), ("half-open", 31.6), ("closed", 32.0))
    ]
    history.sessions.revokes = [Revoke("s1", 5, 6)]
    history.sessions.uses = [Authentication("s1", "t", 1, 2, live=True), Authentication("s1", "t", 7, 8, live=False)]
    history.before = history.after = {"gateway": Use(30, 10, 100_000, 40)}
    return history


def violations(history: History) -> dict[str, list[str]]:
    found = {name: check(history, BOUNDS) for name, check in checks.CHECKS.items()}
    found["3 deadlines"] = checks.deadlines(history, BOUNDS, lambda _: False)
    return {name: broken for name, broken in found.items() if broken}


def test_a_good_history_breaks_nothing() -> None:
    assert violations(good()) == {}


def stale(history: History) -> None:
    history.reads.append(read(1, 16))


def from_nowhere(history: History) -> None:
    history.reads.append(read(4, 16))


def gone(history: History) -> None:
    history.reads.append(read(0, 16))


def stale_for_too_long(history: History) -> None:
    history.looks["devices-1"] = [Look(look.at, 1, {FAILED: look.at}) for look in history.looks["devices-1"]]
    history.reads.append(read(1, 24))


def revoked_and_live(history: History) -> None:
    history.sessions.uses.append(Authentication("s1", "t", 9, 10, live=True))


def four_attempts(history: History) -> None:
    history.attempts["chaos-2 /x"] = 4


def too_many_retries(history: History) -> None:
    for number, look in enumerate(history.looks["devices-1"]):
        look.values["bas_client_retries_total.made"] = 100.0 * number


def late(history: History) -> None:
    history.calls.append(call(50, 1.4))


def closed_without_a_probe(history: History) -> None:
    history.transitions.append(Transition("gateway", 1, "cache", "open", 1.0))
    history.transitions.append(Transition("gateway", 1, "cache", "closed", 20.0))


def probed_too_early(history: History) -> None:
    history.transitions.append(Transition("devices-1", 1, "devices-store", "open", 1.0))
    history.transitions.append(Transition("devices-1", 1, "devices-store", "half-open", 9.0))


def over_the_limit(history: History) -> None:
    history.calls += [call(60 + number / 100, 0.01) for number in range(30)]


def lost(history: History) -> None:
    history.log["acme"] = [told(1), told(2)]
    history.followers = []


def confirmed_and_lost(history: History) -> None:
    history.writes[1].confirmed = 13
    history.log["acme"] = [told(1), told(3)]
    history.followers = []


def twice(history: History) -> None:
    history.log["acme"].append(told(3))
    history.followers = []


def reordered(history: History) -> None:
    history.log["acme"] = [told(2), told(1), told(3)]
    history.followers = []


def missed_by_a_follower(history: History) -> None:
    history.followers[0].heard = [told(1), told(3)]


def twice_to_a_follower(history: History) -> None:
    history.followers[0].heard.append(told(3))


def invented(history: History) -> None:
    history.log["acme"].append(told(9))
    history.followers = []


def shown_to_another(history: History) -> None:
    history.reads[0].mark = mark("umbrella")


def heard_by_another(history: History) -> None:
    history.followers[0].heard[0] = replace(told(1), mark=mark("umbrella"))


def leaked(history: History) -> None:
    history.after = {"gateway": Use(30, 10, 100_000, 400)}


@pytest.mark.parametrize(
    ("bug", "found_by"),
    [
        (stale, "1 cache"),
        (from_nowhere, "1 cache"),
        (gone, "1 cache"),
        (stale_for_too_long, "1 cache"),
        (revoked_and_live, "1 cache"),
        (four_attempts, "2 attempts"),
        (too_many_retries, "2 attempts"),
        (late, "3 deadlines"),
        (closed_without_a_probe, "4 breakers"),
        (probed_too_early, "4 breakers"),
        (over_the_limit, "5 limiter"),
        (lost, "6 effects"),
        (confirmed_and_lost, "6 effects"),
        (twice, "6 effects"),
        (reordered, "6 effects"),
        (missed_by_a_follower, "6 effects"),
        (twice_to_a_follower, "6 effects"),
        (invented, "6 effects"),
        (shown_to_another, "7 tenants"),
        (heard_by_another, "7 tenants"),
        (leaked, "8 resources"),
    ],
    ids=lambda each: each.__name__ if callable(each) else None,
)
def test_a_bad_history_is_found(bug: Callable[[History], None], found_by: str) -> None:
    history = good()
    bug(history)
    assert list(violations(history)) == [found_by]


def test_staleness_is_forgiven_while_the_cache_could_not_be_told() -> None:
    history = good()
    history.looks["devices-1"] = [Look(look.at, 1, {FAILED: look.at}) for look in history.looks["devices-1"]]
    history.reads.append(read(1, 16))
    assert violations(history) == {}


def test_staleness_is_forgiven_after_the_cache_came_back_with_what_it_had() -> None:
    history = good()
    history.restored = [15.5]
    history.reads.append(read(1, 16))
    assert violations(history) == {}


def test_a_gap_that_was_told_is_no_miss() -> None:
    history = good()
    history.followers[0].heard = [told(1), told(3)]
    history.followers[0].gaps = ["GAP_REASON_EPOCH_CHANGED"]
    assert violations(history) == {}


def test_who_asks_late_is_answered_late() -> None:
    history = good()
    history.calls.append(call(50, 1.4, lag=0.2))
    assert violations(history) == {}
