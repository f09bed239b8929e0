import base64
import dataclasses
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chassis.auth import keys, tokens
from chassis.auth.keys import KeyFileError, KeySet, SigningKey
from chassis.auth.tokens import Grant
from chassis.config import Auth, Seconds
from chassis.errors import ApiError, Code

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTH = Auth()
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = KeySet({"k1": _PRIVATE.public_key()}, SigningKey("k1", _PRIVATE))

Claims = dict[str, Any]


def claims(**changes: Any) -> Claims:
    now = int(NOW.timestamp())
    made: Claims = {
        "iss": "bas", "aud": "bas", "sub": "me", "tenant": "t1", "scope": "devices:read", "iat": now, "exp": now + 60,
    }  # fmt: skip
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def signed(content: Claims, private: Any = _PRIVATE, algorithm: str = "EdDSA", **headers: Any) -> str:
    return jwt.encode(content, private, algorithm=algorithm, headers={"kid": "k1", **headers})


def raw(header: Any, content: Any, signature: bytes = b"x") -> str:
    def part(value: Any) -> str:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    return f"{part(header)}.{part(content)}.{part(signature)}"


def refusal(token: str, now: datetime = NOW) -> str:
    with pytest.raises(ApiError) as refused:
        tokens.verify(token, KEYS, AUTH, now)
    assert refused.value.code is Code.UNAUTHENTICATED
    return refused.value.reason


def test_what_is_minted_is_verified() -> None:
    grant = Grant("t1", "me", ("devices:write", "users:read"), 600, session_id="s1", token_id="j1")
    token = tokens.mint(KEYS, AUTH, grant, NOW)
    caller = tokens.verify(token, KEYS, AUTH, NOW)
    assert (caller.tenant, caller.subject, caller.session_id) == ("t1", "me", "s1")
    assert caller.scopes == {"devices:write", "devices:read", "users:read"}
    assert caller.expires_at == NOW.timestamp() + 600
    assert jwt.decode(token, options={"verify_signature": False})["jti"] == "j1"


def test_a_default_grant_is_every_scope_by_name() -> None:
    caller = tokens.verify(tokens.mint(KEYS, AUTH, Grant("t1", "me"), NOW), KEYS, AUTH, NOW)
    assert caller.scopes == {f"{service}:{level}" for service in tokens.SERVICES for level in tokens.LEVELS}
    assert "*" not in caller.scopes


def test_an_unknown_scope_gives_nothing_but_itself() -> None:
    assert tokens.expand(["devices:own", "robots:admin"]) == {
        "devices:own", "robots:admin", "robots:write", "robots:read",
    }  # fmt: skip


PUBLIC_PEM = _PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256_with_the_public_key(secret: bytes) -> str:
    import hmac  # noqa: PLC0415

    token = raw({"alg": "HS256", "kid": "k1", "typ": "JWT"}, claims())
    head = token.rpartition(".")[0]
    mac = hmac.digest(secret, head.encode(), "sha256")
    return head + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: raw({"alg": "none", "kid": "k1"}, claims(), b""),
    "alg none, signed": lambda: raw({"alg": "none", "kid": "k1"}, claims()),
    "alg None": lambda: raw({"alg": "None", "kid": "k1"}, claims()),
    "HS256 with the public key": lambda: hs256_with_the_public_key(_PRIVATE.public_key().public_bytes_raw()),
    "HS256 with the public PEM": lambda: hs256_with_the_public_key(PUBLIC_PEM),
    "foreign key, same kid": lambda: signed(claims(), Ed25519PrivateKey.generate()),
    "unknown kid": lambda: signed(claims(), kid="k2"),
    "no kid": lambda: jwt.encode(claims(), _PRIVATE, algorithm="EdDSA"),
    "kid is no text": lambda: raw({"alg": "EdDSA", "kid": ["k1"]}, claims()),
    "own key in the header": lambda: signed(claims(), jwk={"kty": "OKP"}),
    "critical extension": lambda: signed(claims(), crit=["exp"]),
    "payload is a list": lambda: raw({"alg": "EdDSA", "kid": "k1"}, []),
    "payload is not JSON": lambda: raw({"alg": "EdDSA", "kid": "k1"}, b"\xff"),
    "header is not an object": lambda: raw([1], claims()),
    "header nested deep": lambda: raw(b"[" * 3000, claims()),
    "two parts": lambda: signed(claims()).rpartition(".")[0],
    "four parts": lambda: signed(claims()) + ".x",
    "no parts": lambda: "token",
    "empty": lambda: "",
    "line feed at the end": lambda: signed(claims()) + "\n",
    "not ASCII": lambda: "é.é.é",
    "too long": lambda: signed(claims(extra="x" * tokens.MOST_BYTES)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forgeries_are_refused(name: str) -> None:
    assert refusal(FORGED[name]()) == "TOKEN_INVALID"


def test_these_tests_can_fail_a_trusting_verifier_takes_some_of_them() -> None:
    """The seeded bug: a verifier that believes what a token says of itself."""
    taken = set()
    for name, forge in FORGED.items():
        try:
            jwt.decode(forge(), options={"verify_signature": False, "verify_exp": False})
        except jwt.PyJWTError:
            continue
        taken.add(name)
    assert {"foreign key, same kid", "alg none, signed", "HS256 with the public key", "unknown kid"} <= taken


@pytest.mark.parametrize("index", range(0, 300, 11))
def test_a_flipped_character_is_refused(index: int) -> None:
    token = signed(claims())
    index %= len(token) - 1  # the last one carries padding bits
    flipped = "A" if token[index] != "A" else "B"
    assert refusal(token[:index] + flipped + token[index + 1 :]) == "TOKEN_INVALID"


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "tenant", "scope", "iat", "exp"])
def test_each_claim_is_required(name: str) -> None:
    assert refusal(signed(claims(**{name: None}))) == "TOKEN_INVALID"


_T = int(NOW.timestamp())


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"}, {"aud": "other"}, {"aud": ["other"]}, {"aud": {"bas": 1}},
        {"sub": ""}, {"sub": "a b"}, {"sub": "x" * 257}, {"sub": "a\x00"},
        {"tenant": ""}, {"tenant": "a/b"}, {"tenant": "x" * 129}, {"tenant": "t1\n"}, {"tenant": "ü"}, {"tenant": "a:b"},
        {"scope": "*"}, {"scope": "devices"}, {"scope": "devices:read  users:read"}, {"scope": "Devices:read"},
        {"iat": _T + 6, "exp": _T + 60}, {"nbf": _T + 6}, {"nbf": True}, {"iat": True}, {"iat": float("nan")},
        {"exp": float("inf")}, {"exp": 10**400}, {"exp": _T, "iat": _T}, {"exp": _T + 31 * 86400}, {"sid": "a b"},
        {"exp": float("nan")},
    ],
)  # fmt: skip
def test_a_claim_of_a_wrong_form_or_value_is_refused(changes: Claims) -> None:
    assert refusal(signed(claims(**changes))) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "changes", [{"iss": 7}, {"iss": ["bas"]}, {"sub": 7}, {"tenant": 7}, {"scope": ["devices:read"]}, {"exp": "1"}]
)
def test_a_claim_of_a_wrong_type_is_refused(changes: Claims) -> None:
    # PyJWT does not sign some of these, so they are signed by hand.
    head = raw({"alg": "EdDSA", "kid": "k1"}, claims(**changes)).rpartition(".")[0]
    token = head + "." + base64.urlsafe_b64encode(_PRIVATE.sign(head.encode())).rstrip(b"=").decode()
    assert refusal(token) == "TOKEN_INVALID"


def test_times_are_judged_with_leeway_and_no_more() -> None:
    token = signed(claims())
    assert tokens.verify(token, KEYS, AUTH, NOW + timedelta(seconds=64.9)).tenant == "t1"
    assert refusal(token, NOW + timedelta(seconds=65)) == "TOKEN_EXPIRED"
    assert tokens.verify(token, KEYS, AUTH, NOW - timedelta(seconds=5)).tenant == "t1"
    assert refusal(token, NOW - timedelta(seconds=5.1)) == "TOKEN_INVALID"


def test_an_expired_forgery_is_invalid_not_expired() -> None:
    token = signed(claims(), Ed25519PrivateKey.generate())
    assert refusal(token, NOW + timedelta(days=1)) == "TOKEN_INVALID"


def test_a_long_token_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(_token: str) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(jwt, "get_unverified_header", parsed)
    assert refusal("a." + "b" * tokens.MOST_BYTES + ".c") == "TOKEN_INVALID"
    assert tokens.key_id("a." + "b" * tokens.MOST_BYTES + ".c") is None


@given(st.text(max_size=200))
def test_any_text_is_refused_without_another_exception(text: str) -> None:
    assert refusal(text) == "TOKEN_INVALID"
    tokens.key_id(text)


@given(
    st.dictionaries(
        st.sampled_from(sorted(claims())), st.none() | st.booleans() | st.integers() | st.text(), min_size=1
    )
)
def test_any_signed_claims_are_a_caller_or_a_refusal(changes: Claims) -> None:
    head = raw({"alg": "EdDSA", "kid": "k1"}, {**claims(), **changes}).rpartition(".")[0]
    token = head + "." + base64.urlsafe_b64encode(_PRIVATE.sign(head.encode())).rstrip(b"=").decode()
    outcome = "a caller"
    try:
        tokens.verify(token, KEYS, AUTH, NOW)
    except ApiError as refused:
        outcome = refused.reason
    assert outcome in {"a caller", "TOKEN_INVALID", "TOKEN_EXPIRED"}


@pytest.mark.parametrize(
    "grant",
    [
        Grant("", "me"), Grant("a/b", "me"), Grant("t1", ""), Grant("t1", "me", ("*",)), Grant("t1", "me", ("x:read",)),
        Grant("t1", "me", ttl=0), Grant("t1", "me", ttl=float("nan")), Grant("t1", "me", ttl=31 * 86400.0),
    ],
)  # fmt: skip
def test_a_malformed_grant_is_not_minted(grant: Grant) -> None:
    with pytest.raises(ValueError, match=r"tenant|subject|scope|ttl"):
        tokens.mint(KEYS, AUTH, grant, NOW)


def test_public_keys_mint_nothing() -> None:
    with pytest.raises(KeyFileError, match="BAS_AUTH_KEYS"):
        tokens.mint(KeySet(KEYS.verifying), AUTH, Grant("t1", "me"), NOW)


def test_tokens_of_the_older_key_stay_good_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old = tokens.mint(keys.load_or_create(path, os.urandom), AUTH, Grant("t1", "me"), NOW)
    rotated = keys.rotate(path, os.urandom)
    new = tokens.mint(rotated, AUTH, Grant("t1", "me"), NOW)
    assert tokens.verify(old, rotated, AUTH, NOW).tenant == tokens.verify(new, rotated, AUTH, NOW).tenant


def test_the_longest_life_is_configured() -> None:
    short = dataclasses.replace(AUTH, max_ttl=Seconds(30))
    with pytest.raises(ApiError):
        tokens.verify(signed(claims()), KEYS, short, NOW)
