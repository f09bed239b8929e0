import dataclasses
import os
from datetime import timedelta
from pathlib import Path

import pytest

from chassis.auth import keys, tokens
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant
from chassis.auth.verifier import Verifier
from chassis.clock import FakeClock
from chassis.config import Auth
from chassis.errors import ApiError

AUTH = Auth()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def held(path: Path) -> KeySet:
    return keys.load_or_create(path, os.urandom)


def bearer(held: KeySet, clock: FakeClock, tenant: str = "t1", ttl: float = 60) -> str:
    return "Bearer " + tokens.mint(held, AUTH, Grant(tenant, "me", ttl=ttl), clock.now())


def refusal(verifier: Verifier, authorization: str) -> str:
    with pytest.raises(ApiError) as refused:
        verifier.verify(authorization)
    return refused.value.reason


def test_a_signature_is_checked_once(held: KeySet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, given = Verifier(held, AUTH, clock), bearer(held, clock)
    first = verifier.verify(given)
    monkeypatch.setattr(tokens, "verify", lambda *_: pytest.fail("verified again"))
    assert verifier.verify(given) is first


async def test_a_remembered_token_expires_all_the_same(held: KeySet, clock: FakeClock) -> None:
    verifier, given = Verifier(held, AUTH, clock), bearer(held, clock)
    verifier.verify(given)
    await clock.advance(64)
    verifier.verify(given)
    await clock.advance(1)
    assert refusal(verifier, given) == "TOKEN_EXPIRED"
    assert len(verifier) == 0
    assert refusal(verifier, given) == "TOKEN_EXPIRED"


def test_memory_is_bounded_and_forgets_the_least_recently_used(held: KeySet, clock: FakeClock) -> None:
    verifier = Verifier(held, dataclasses.replace(AUTH, verified_cache=2), clock)
    one, two, three = (bearer(held, clock, tenant) for tenant in ("a", "b", "c"))
    first = verifier.verify(one)
    second = verifier.verify(two)
    assert verifier.verify(one) is first
    verifier.verify(three)
    assert len(verifier) == 2
    assert verifier.verify(one) is first
    assert verifier.verify(two) is not second


def test_a_memory_of_none_verifies_each_time(held: KeySet, clock: FakeClock) -> None:
    verifier = Verifier(held, dataclasses.replace(AUTH, verified_cache=0), clock)
    assert verifier.verify(bearer(held, clock)).tenant == "t1"
    assert len(verifier) == 0


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "token"])
def test_no_bearer_token_is_a_missing_one(held: KeySet, clock: FakeClock, given: str) -> None:
    assert refusal(Verifier(held, AUTH, clock), given) == "TOKEN_MISSING"


def test_the_scheme_is_read_in_any_case(held: KeySet, clock: FakeClock) -> None:
    given = bearer(held, clock).replace("Bearer", "bearer")
    assert Verifier(held, AUTH, clock).verify(given).tenant == "t1"


def test_a_bad_token_is_not_remembered(held: KeySet, clock: FakeClock) -> None:
    verifier = Verifier(held, AUTH, clock)
    assert refusal(verifier, "Bearer a.b.c") == "TOKEN_INVALID"
    assert len(verifier) == 0


async def test_a_rotated_key_is_taken_up_without_a_restart(path: Path, held: KeySet, clock: FakeClock) -> None:
    verifier = Verifier.watching(path, held, AUTH, clock)
    old = bearer(held, clock)
    new = bearer(keys.rotate(path, os.urandom), clock)
    assert verifier.verify(new).tenant == "t1"
    assert verifier.verify(old).tenant == "t1"


async def test_unknown_keys_cost_one_look_in_five_seconds(path: Path, held: KeySet, clock: FakeClock) -> None:
    looks: list[int] = []

    def reload() -> KeySet:
        looks.append(1)
        return keys.load(path)

    verifier = Verifier(held, AUTH, clock, reload)
    foreign = bearer(keys.load_or_create(path.with_name("other.json"), os.urandom), clock, ttl=3600)
    for _ in range(100):
        assert refusal(verifier, foreign) == "TOKEN_INVALID"
    assert len(looks) == 1
    await clock.advance(timedelta(seconds=5).total_seconds())
    refusal(verifier, foreign)
    assert len(looks) == 2


async def test_a_key_file_that_breaks_later_does_not_stop_the_known_keys(
    path: Path, held: KeySet, clock: FakeClock
) -> None:
    verifier = Verifier.watching(path, held, AUTH, clock)
    good = bearer(held, clock)
    path.write_text("half")  # noqa: ASYNC240 - a test may wait for its disk
    foreign = bearer(keys.load_or_create(path.with_name("other.json"), os.urandom), clock)
    assert refusal(verifier, foreign) == "TOKEN_INVALID"
    assert verifier.verify(good).tenant == "t1"
