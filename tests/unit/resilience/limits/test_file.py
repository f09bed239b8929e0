import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chassis.clock import FakeClock
from chassis.config import ConfigError
from chassis.resilience.limits.file import EVERY, PolicyFile
from chassis.resilience.limits.policies import Policies, Policy
from tests.support.eventually import eventually

DEFAULT = Policy(500.0, 1000)
SMALL = "[tenants.acme]\nrate = 5\nburst = 10\n"


def write(path: Path, text: str) -> None:
    """As one writes what others read: all at once."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


class Held:
    """What is in force."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.file = PolicyFile(path, DEFAULT, self.clock)
        self.policies = self.file.load()

    def use(self, policies: Policies) -> None:
        self.policies = policies

    async def look(self) -> Policy:
        await self.file.check(self.use)
        return self.policies.of("acme", "v2")


@pytest.mark.parametrize("text", ["[tenants.acme]\nrate = 0\n", "nonsense", None])
def test_a_bad_file_stops_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "limits.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="BAS_LIMITS_POLICIES"):
        PolicyFile(path, DEFAULT, FakeClock()).load()


async def test_changes_are_taken_up_and_bad_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    write(path, SMALL)
    held = Held(path)
    assert held.policies.of("acme", "v2") == Policy(5.0, 10)
    write(path, SMALL.replace("5", "50"))
    assert await held.look() == Policy(50.0, 10)
    for bad in ("[tenants.acme]\nrate = 0\n", "[tenants.acme]\nrate = 1e99\n", "nonsense"):
        write(path, bad)
        with capture_logs() as logged:
            assert await held.look() == Policy(50.0, 10)
            assert await held.look() == Policy(50.0, 10)
        assert [(line["log_level"], line["event"]) for line in logged] == [
            ("error", "limits not taken up: the old ones stay")
        ]
    path.unlink()
    with capture_logs() as logged:
        assert await held.look() == Policy(50.0, 10)
        assert await held.look() == Policy(50.0, 10)
    assert len(logged) == 1
    write(path, SMALL)
    assert await held.look() == Policy(5.0, 10)
    write(path, "")
    assert await held.look() == DEFAULT


async def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    write(path, SMALL)
    held = Held(path)
    first = held.policies
    await held.look()
    assert held.policies is first


async def test_it_is_looked_at_by_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    write(path, SMALL)
    held = Held(path)
    watching = asyncio.create_task(held.file.watch(held.use))
    await eventually(lambda: held.clock.sleepers == 1, "asleep")
    write(path, SMALL.replace("5", "50"))
    await held.clock.advance(EVERY)
    await eventually(lambda: held.policies.of("acme", "v2") == Policy(50.0, 10), "taken up")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
