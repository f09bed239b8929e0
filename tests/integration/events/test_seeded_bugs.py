"""What the tests of the log are worth: each bug that is planted here must be caught by the test that is named."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chassis.cache.port import Script
from services.events import feed, scripts
from services.events.port import EventLog
from tests.conformance.events import test_event_log as promises
from tests.integration.events import test_epochs as epochs
from tests.integration.events.test_epochs import folder, server
from tests.support.redis_event_log import redis_event_log, settings
from tests.support.valkey import Valkey

__all__ = ["folder", "server"]


def plant(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    """The bug in every script that has the line."""
    found = 0
    for name in ("PUBLISH", "READ", "STATE", "FETCH"):
        script: Script = getattr(scripts, name)
        if right in script.source:
            monkeypatch.setattr(scripts, name, Script(script.name, script.source.replace(right, wrong)))
            found += 1
    assert found, f"there is no {right!r} any more"


@pytest.mark.parametrize(
    ("right", "wrong", "check"),
    [
        ("taken[name] or ", "", promises.test_what_was_there_before_is_dropped_and_placed_where_it_is),
        ("here[i] or ", "", promises.test_what_was_there_before_is_dropped_and_placed_where_it_is),
        ("m.seq - m.first > count", "m.seq - m.first >= count", promises.test_retention_keeps_exactly_so_many),
        ("whole(before + 1)", "whole(before)", promises.test_following_brings_what_happens_after_it_has_begun),
        ("after + 1), '+'", "after), '+'", promises.test_reading_stops_at_its_limits),
    ],
)
async def test_a_bug_in_a_script_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    valkey: Valkey,
    right: str,
    wrong: str,
    check: Callable[[EventLog], Awaitable[None]],
) -> None:
    plant(monkeypatch, right, wrong)
    async with redis_event_log(valkey.url, settings(count=20)) as log:
        with pytest.raises(AssertionError):
            await check(log)


async def test_an_epoch_that_outlives_its_run_is_caught(
    monkeypatch: pytest.MonkeyPatch, server: Valkey, folder: Path
) -> None:
    plant(monkeypatch, "if epoch and s[2] == run and not short", "if epoch and not short")
    with pytest.raises(AssertionError):
        await epochs.test_less_than_only_a_publisher_knows_who_has_died_too(server, folder)


async def test_a_witness_that_is_not_heard_is_caught(
    monkeypatch: pytest.MonkeyPatch, server: Valkey, folder: Path
) -> None:
    plant(monkeypatch, "short = not at or (at ~= -1 and at < seen)", "short = false")
    async with redis_event_log(server.url) as log:
        with pytest.raises(AssertionError):
            await epochs.test_restarted_with_less_than_this_process_knows(server, log, folder)


async def test_a_follower_that_trusts_what_is_there_is_caught(monkeypatch: pytest.MonkeyPatch, server: Valkey) -> None:
    async def trust(self: feed._Follower, found: list[feed.Publication]) -> list[object]:
        for each in found:
            self._name = each.name
            self._want(each)
        return []

    monkeypatch.setattr(feed._Follower, "_take", trust)
    monkeypatch.setattr(feed._Follower, "doubt", lambda _: None)
    with pytest.raises((AssertionError, TimeoutError)):
        await epochs.test_flushed_and_filled_again_beyond_what_was_there(server)
