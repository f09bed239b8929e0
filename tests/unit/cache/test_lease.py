"""The pure rules: how long entries live, and what their bytes are."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.cache.lease import TOKEN_BYTES, Entry, Lives, decode, encode, fresh_token
from chassis.cache.port import Loaded

LIVES = Lives(ttl=60.0, negative_ttl=3.0, lease_ttl=10.0, jitter=0.1)


@given(seed=st.integers(), bound=st.none() | st.floats(-10, 1000))
def test_a_life_stays_within_jitter_and_bound(seed: int, bound: float | None) -> None:
    seconds = LIVES.of(Loaded(b"", "1", max_ttl=bound), Random(seed))
    assert seconds <= 66.0
    if bound is None or bound > 66.0:
        assert seconds >= 54.0
    else:
        assert seconds <= max(bound, 0.0) + abs(min(bound, 0.0)) * 0.1


@given(seed=st.integers())
def test_an_absence_lives_for_seconds_only(seed: int) -> None:
    assert 2.7 <= LIVES.of(None, Random(seed)) <= 3.0


@given(data=st.none() | st.binary())
def test_entries_come_back(data: bytes | None) -> None:
    assert decode(encode(None if data is None else Loaded(data, "1"))) == Entry(data)


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x02\x00x", b"\x01\x02", b"\x01\x01x"])
def test_other_bytes_are_a_miss(value: bytes) -> None:
    assert decode(value) is None


def test_tokens_have_their_length_and_differ() -> None:
    tokens = {fresh_token(Random(seed)) for seed in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {TOKEN_BYTES}
