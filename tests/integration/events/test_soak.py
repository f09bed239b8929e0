"""A short soak of a whole platform: `make soak-events` is the long one."""

from pathlib import Path

import pytest

from tests.integration.events.soak import Plan, soak


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
async def test_a_short_one() -> None:
    outcome = await soak(Plan(subscribers=40, tenants=3, seconds=3.0, pause=0.5))
    assert outcome.verdict.faults == 0, str(outcome)
    assert outcome.verdict.gaps >= 40, "the log was emptied under all of them"
    assert outcome.verdict.delivered > 40 * 10
    assert len(outcome.faults) == 5
