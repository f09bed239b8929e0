"""HPACK against the examples of RFC 7541 and against itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.http2.hpack import Header, HpackError, decode, integer, literal

NAMES = st.binary(min_size=1, max_size=200)
VALUES = st.binary(max_size=300)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_what_is_encoded_is_decoded(headers: list[Header]) -> None:
    for secret in (False, True):
        assert decode(b"".join(literal(name, value, secret=secret) for name, value in headers)) == headers


def test_the_examples_of_the_rfc() -> None:
    assert integer(10, 5) == b"\x0a"  # C.1.1
    assert integer(1337, 5) == b"\x1f\x9a\x0a"  # C.1.2
    assert decode(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")) == [
        (b"custom-key", b"custom-header")
    ]  # C.2.1
    assert decode(bytes.fromhex("82868441" + "8cf1e3c2e5f23a6ba0ab90f4ff")) == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ]  # C.4.1
    assert decode(bytes.fromhex("6196d07abe941054d444a8200595040b8166e082a62d1bff")) == [
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
    ]  # C.6.1
    assert decode(b"\x20\x88") == [(b":status", b"200")], "the table that there is not is set to nothing"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("be", id="an entry of the table that there is not"),
        pytest.param("80", id="entry nought"),
        pytest.param("3fe11f", id="a table"),
        pytest.param("0003", id="a string that ends early"),
        pytest.param("00", id="nothing after a literal"),
        pytest.param("ffffffffffffffffff01", id="an endless integer"),
        pytest.param("0001618100", id="padding of noughts"),
        pytest.param("00016184ffffffff", id="the end of a string in its middle"),
    ],
)
def test_what_no_peer_may_send(block: str) -> None:
    with pytest.raises(HpackError):
        decode(bytes.fromhex(block))


@given(st.binary(max_size=64))
def test_noise_is_refused_or_read(block: bytes) -> None:
    try:
        decode(block)
    except HpackError:
        return
