"""Ids and field names: any text becomes one that Firestore takes, comes back, and sorts where it sorted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.store.firestore_names import (
    COMMIT,
    MAX_NAME,
    decode_field,
    decode_id,
    encode_field,
    encode_id,
    field_path,
)
from tests.firestore.limits import check_path
from tests.firestore.values import parse_path

ODD = st.text(alphabet=st.sampled_from("\x00\x1f !?~-_./@aé\U0010ffff"), min_size=1, max_size=12)
ANY = ODD | st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode()) <= MAX_NAME)


@given(ANY)
def test_an_id_comes_back_from_a_segment_that_firestore_takes(text: str) -> None:
    segment = encode_id(text)
    assert decode_id(segment) == text
    check_path(f"c/{segment}", even=True)


@given(ANY, ANY)
def test_segments_sort_as_their_ids(one: str, other: str) -> None:
    assert (encode_id(one).encode() < encode_id(other).encode()) == (one.encode() < other.encode())


@pytest.mark.parametrize("text", ["device-1", "a_b", "Ünïcödé", "01J9:x+y=z~(1)", "x" * 375])
def test_plain_ids_are_themselves(text: str) -> None:
    assert encode_id(text) == text


@pytest.mark.parametrize("text", ["/" * 1500, "__" + "x" * 1498, "é/" * 500, "\x00" * 1500])
def test_ids_too_long_once_escaped_end_in_a_hash(text: str) -> None:
    segment = encode_id(text)
    check_path(f"c/{segment}", even=True)
    assert decode_id(segment) is None
    assert encode_id(text[:-1] + "!") != segment


def test_the_longest_plain_id_is_itself() -> None:
    assert encode_id("x" * 1500) == "x" * 1500


@given(st.text(max_size=40))
def test_a_field_comes_back_under_a_name_that_firestore_takes(name: str) -> None:
    stored = encode_field(name)
    assert decode_field(stored) == name
    assert stored
    assert stored != COMMIT
    assert not re.fullmatch(r"__.*__", stored, re.DOTALL)


@pytest.mark.parametrize("name", ["_commit", "_id", "", "__x__", "a !"])
def test_reserved_names_are_told_apart(name: str) -> None:
    assert encode_field(name) == f"{name} !"


@given(st.text(min_size=1, max_size=20))
def test_a_path_names_one_field_whatever_is_in_its_name(name: str) -> None:
    assert parse_path(field_path(name)) == (encode_field(name),)


def test_a_name_longer_than_firestore_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="1500"):
        encode_field("x" * 1501)
