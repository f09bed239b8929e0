"""Ids and etags."""

import re
import secrets

from hypothesis import given
from hypothesis import strategies as st

from chassis.api.ids import etag_matches, etag_of, new_id


def test_ids_are_128_random_bits_in_26_characters() -> None:
    made = {new_id(secrets.token_bytes) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", one) for one in made)
    assert new_id(bytes) == "0" * 26
    assert new_id(lambda size: b"\xff" * size) == "7" + "z" * 25


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_no_bit_is_lost(one: bytes, other: bytes) -> None:
    assert (new_id(lambda _: one) == new_id(lambda _: other)) == (one == other)


@given(st.text(), st.text())
def test_an_etag_tells_versions_apart_and_fits_its_field(one: str, other: str) -> None:
    assert (etag_of(one) == etag_of(other)) == (one == other)
    assert re.fullmatch(r"[0-9a-f]{20}", etag_of(one))
    assert etag_matches(etag_of(one), one)
    assert etag_matches(etag_of(one), other) == (one == other)


def test_no_etag_asks_for_nothing() -> None:
    assert etag_matches("", "7")
    assert not etag_matches("é", "7")
