"""Tokens are read back as they were made, and nothing else is one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.api.ids import new_id
from services.sessions.tokens import Presented, SessionTokens, digest_of, present

TOKENS = SessionTokens(b"k" * 32)
IDS = st.text("abcXYZ019.~-", min_size=1, max_size=128) | st.randoms().map(lambda r: new_id(r.randbytes))
GENERATIONS = st.integers(0, 2**32 - 1)
SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~_.")


@given(IDS, GENERATIONS)
def test_a_token_is_read_back(session_id: str, generation: int) -> None:
    token = TOKENS.issue(session_id, generation)
    assert token == TOKENS.issue(session_id, generation)
    assert set(token) <= SAFE
    shown = present(token)
    assert shown == Presented(session_id, token, digest_of(token))
    assert TOKENS.generation(shown) == generation
    assert SessionTokens(b"K" * 32).generation(shown) is None


@given(IDS, GENERATIONS, st.data())
def test_a_token_that_was_changed_anywhere_opens_nothing(session_id: str, generation: int, data: st.DataObject) -> None:
    token = TOKENS.issue(session_id, generation)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda each: each != token[at]))
    how = data.draw(st.sampled_from(("replace", "insert", "delete", "cut")))
    changed = {
        "replace": token[:at] + other + token[at + 1 :],
        "insert": token[:at] + other + token[at:],
        "delete": token[:at] + token[at + 1 :],
        "cut": token[:at],
    }[how]
    shown = present(changed)
    assert shown.digest != digest_of(token)
    assert TOKENS.generation(shown) is None


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_anything_at_all_can_be_presented(text: str) -> None:
    shown = present(text)
    assert len(shown.digest) == 32
    if not shown.text:
        assert shown.session_id[0] == "~"
        assert set(shown.session_id) <= SAFE
        assert len(shown.session_id) == 26
        assert TOKENS.generation(shown) is None


def test_a_megabyte_is_nobodys_token() -> None:
    one, other = present("bas_" + "a" * 1_000_000), present("bas_" + "a" * 1_000_001)
    assert one.session_id != other.session_id
    assert not one.text


def test_two_sessions_and_two_generations_share_no_secret() -> None:
    ids = [new_id(random.Random(seed).randbytes) for seed in range(50)]
    secrets = {TOKENS.issue(each, generation).rpartition("_")[2][6:] for each in ids for generation in range(50)}
    assert len(secrets) == 2500


def test_a_token_does_not_show_in_what_is_logged() -> None:
    token = TOKENS.issue("s1", 1)
    assert token.rpartition("_")[2] not in repr(present(token))


@pytest.mark.parametrize("text", ["", "bas", "bas__", "bas_s1_", "BAS_s1_" + "a" * 48, "bas_s_1_" + "a" * 48])
def test_what_is_malformed_claims_no_session(text: str) -> None:
    assert not present(text).text
