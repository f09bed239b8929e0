import os
from pathlib import Path

import pytest

from chassis.auth import keys as key_files
from chassis.auth.keys import KeySet
from chassis.auth.tokens import verify
from chassis.clock import FakeClock
from chassis.config import Auth
from launcher.probe_credential import ProbeCredential


@pytest.fixture
def keys(tmp_path: Path) -> KeySet:
    return key_files.load_or_create(tmp_path / "keys.json", os.urandom)


async def test_it_is_always_good_may_do_nothing_and_is_not_minted_for_every_probe(keys: KeySet) -> None:
    clock = FakeClock()
    credential = ProbeCredential(keys, Auth(), clock)
    seen = set()
    for _ in range(20):
        ((name, text),) = credential()
        caller = verify(text.removeprefix("Bearer "), keys, Auth(), clock.now())
        assert (name, caller.scopes) == ("authorization", frozenset())
        seen.add(text)
        await clock.advance(10)
    assert len(seen) == 7


def test_without_a_private_key_there_is_none(keys: KeySet) -> None:
    public = KeySet(keys.verifying)
    assert ProbeCredential(public, Auth(), FakeClock())() == ()
