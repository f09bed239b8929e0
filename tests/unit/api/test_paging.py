"""Page sizes, and page tokens that nobody can make, change or carry elsewhere."""

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.api.paging import Listing, PageTokens, page_size
from chassis.errors import ApiError, Code
from chassis.store.port import Value

TOKENS = PageTokens(b"k" * 32)
LISTING = Listing("t1", "ListDevices", ("status = ONLINE", "create_time desc"))

values: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.datetimes(timezones=st.just(UTC)),
    st.text(max_size=300),
    st.binary(max_size=300),
)
cursors = st.lists(values, max_size=4).map(tuple)
listings = st.builds(Listing, st.text(), st.text(), st.lists(st.text(), max_size=3).map(tuple))


@pytest.mark.parametrize(("requested", "given_back"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_page_size(requested: int, given_back: int) -> None:
    assert page_size(requested) == given_back


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        page_size(-1)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == "page_size"


def same(left: Value, right: Value) -> bool:
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    return type(left) is type(right) and left == right


@given(listings, cursors)
def test_a_token_gives_back_its_cursor(listing: Listing, cursor: tuple[Value, ...]) -> None:
    read = TOKENS.read(listing, TOKENS.issue(listing, cursor))
    assert read is not None
    assert len(read) == len(cursor)
    assert all(map(same, read, cursor))


def refused(token: str, listing: Listing = LISTING, tokens: PageTokens = TOKENS) -> str:
    with pytest.raises(ApiError) as caught:
        tokens.read(listing, token)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == ["page_token"]
    return caught.value.message


@given(cursors, st.data())
def test_every_flipped_bit_is_refused(cursor: tuple[Value, ...], data: st.DataObject) -> None:
    raw = bytearray(urlsafe_b64decode(padded(TOKENS.issue(LISTING, cursor))))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    refused(urlsafe_b64encode(raw).rstrip(b"=").decode())


def test_every_changed_character_is_refused() -> None:
    token = TOKENS.issue(LISTING, (datetime(2026, 1, 1, tzinfo=UTC), "d1"))
    for at, old in enumerate(token):
        for new in "Aa0-_ =.é":
            if new != old:
                refused(token[:at] + new + token[at + 1 :])
    for longer in (token + "A", token + "=", " " + token, token + "\n", token[:-1]):
        refused(longer)


@given(st.text(max_size=100).filter(bool))
def test_garbage_is_refused_in_one_and_the_same_words(garbage: str) -> None:
    assert refused(garbage) == refused("A" * 5000)


@given(listings, listings, cursors)
def test_a_token_of_another_list_is_refused(mine: Listing, other: Listing, cursor: tuple[Value, ...]) -> None:
    if mine != other:
        refused(TOKENS.issue(mine, cursor), other)


def test_parts_of_the_binding_cannot_be_shifted_into_each_other() -> None:
    token = TOKENS.issue(Listing("t", "mx", ("a", "b")), ("d1",))
    for other in (
        Listing("tm", "x", ("a", "b")),
        Listing("t", "mx", ("ab", "")),
        Listing("t", "mx", ("a", "b", "")),
        Listing("t", "mxa", ("b",)),
    ):
        assert refused(token, other) == refused("garbage")


def test_another_key_is_refused() -> None:
    refused(TOKENS.issue(LISTING, ("d1",)), tokens=PageTokens(b"x" * 32))


def test_the_empty_token_is_the_first_page() -> None:
    assert TOKENS.read(LISTING, "") is None


def test_a_token_shows_no_tenant_and_stays_within_the_field_limit() -> None:
    token = TOKENS.issue(Listing("secret-tenant", "m"), ("\U0001f300" * 256, "i" * 128))
    assert len(token) <= 2048
    assert b"secret-tenant" not in urlsafe_b64decode(padded(token))


@pytest.mark.parametrize("value", [2**63, [1], {"a": 1}, "x" * 70000])
def test_what_no_ordered_field_holds_is_a_programming_error(value: Value) -> None:
    with pytest.raises(ValueError, match="cursor"):
        TOKENS.issue(LISTING, (value,))


def padded(token: str) -> str:
    return token + "=" * (-len(token) % 4)
