"""When two addresses are one."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.users import email
from services.users.email import NoAddress, claim_of, normalized

ASCII = st.text(st.sampled_from("abcxyzABCXYZ019!#$%&'*+-/=?^_`{|}~"), min_size=1, max_size=12)
LABEL = st.from_regex(r"\A[a-z0-9]{1,8}\Z", fullmatch=True).filter(lambda label: not label.startswith("xn--"))
PLAIN = st.builds(lambda local, labels: f"{local}@{'.'.join(labels)}", ASCII, st.lists(LABEL, min_size=1, max_size=3))
ANY = st.builds(lambda local, domain: f"{local}@{domain}", st.text(max_size=20), st.text(max_size=20))


def wide(text: str) -> str:
    """Full-width forms of the letters and digits."""
    return re.sub("[0-9A-Za-z]", lambda found: chr(ord(found[0]) + 0xFEE0), text)


def encoded(address: str) -> str:
    """With the domain as DNS has it."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.com", "ADA@Example.COM"),
        ("ada@example.com", "ada@example.com."),
        ("ada@example.com", "\uff41da@example.com"),
        ("ada@example.com", "ada@ex\u00adample.com"),
        ("ada@example.com", "ad\u200ba@example.com"),
        ("ada@example.com", "ada@example\u3002com"),
        ("ada@example.com", "ada@example\uff0ecom"),
        ("ada@example.com", "ada@example\uff61com"),
        ("ada@example.com", '"ada"@example.com'),
        ("ada@example.com", '"a\\da"@example.com'),
        ("office@a.b", "o\ufb03ce@a.b"),
        ("j\u00fcrgen@m\u00fcnchen.de", "J\u00dcRGEN@M\u00dcNCHEN.DE"),
        ("j\u00fcrgen@m\u00fcnchen.de", "ju\u0308rgen@mu\u0308nchen.de"),
        ("j@m\u00fcnchen.de", "j@xn--mnchen-3ya.de"),
        ("j@m\u00fcnchen.de", "j@XN--MNCHEN-3YA.de"),
        ("j@m\u00fcnchen.de", "j@\uff58n--mnchen-3ya.de"),
        ("j@strasse.de", "j@stra\u00dfe.de"),
        ("j@strasse.de", "j@xn--strae-oqa.de"),
        ("\u03c3\u03c3@a.b", "\u03a3\u03c2@a.b"),
    ],
)
def test_one_address(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)
    assert claim_of(one) == claim_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.com", "ada@example.org"),
        ("ada@example.com", "a.da@example.com"),
        ("ada@example.com", "ada+x@example.com"),
        ("ada@example.com", "\u0430da@example.com"),  # Cyrillic
        ("ada@m\u00fcnchen.de", "ada@munchen.de"),
        ("ada@example.com", "ada@a.example.com"),
    ],
)
def test_two_addresses(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)
    assert claim_of(one) != claim_of(other)


@pytest.mark.parametrize(
    "bad",
    [
        "", "ada", "@b", "a@", "a@.", "a@b..c", "a@.b", "\u200b@b.c", '""@b.c', "a@\u200b", "a@b.\u00ad.c",
        "a\uff20b@c.d", "a@b\uff20c", "a\u00a8@b.c", "a@xn--", "a@xn--a-.de", "a@xn--99999999.de", "a@xn--\u00fc.de",
        "a@b.c\ud800", "a b@c.d",
        "a\u0378@b.c", "a@b\u0378.c",
    ],
)  # fmt: skip
def test_no_address_and_the_refusal_does_not_repeat_it(bad: str) -> None:
    with pytest.raises(NoAddress) as refused:
        normalized(bad)
    assert str(refused.value) == "must be an e-mail address such as ada@example.com"


@given(PLAIN)
def test_case_and_width_make_no_difference(address: str) -> None:
    key = normalized(address)
    assert key == address.lower()
    assert normalized(address.upper()) == normalized(wide(address)) == normalized(f"{address}.") == key


@given(st.from_regex(r"\A[a-z\u00e4\u00e9\u00f8\u0431\u4e2d]{1,12}\Z", fullmatch=True))
def test_a_domain_and_its_encoded_form_are_one(label: str) -> None:
    address = f"ada@{label}.example"
    assert normalized(encoded(address)) == normalized(address)


@given(ANY)
@example("a@xn--mnchen-3ya.de")
@example('"\\"a\\""@b')
@example("a@xn--xn---epa.de")
@example("\u0130@b")
def test_a_key_is_its_own_key_and_always_an_address(address: str) -> None:
    try:
        key = normalized(address)
    except NoAddress:
        return
    assert normalized(key) == key
    assert re.fullmatch(r"[^@\s]+@[^@\s]+", key)
    assert re.fullmatch("[0-9a-f]{64}", claim_of(address))


@given(PLAIN)
def test_the_quick_way_for_ascii_is_the_long_way(address: str) -> None:
    local, _, domain = address.rpartition("@")
    assert normalized(address) == f"{email._folded(local)}@{email._folded(domain)}"


def test_a_key_that_forgot_compatibility_forms_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded bug."""
    monkeypatch.setattr(email, "_folded", str.casefold)
    assert normalized("\uff41da@example.com") != normalized("ada@example.com")
