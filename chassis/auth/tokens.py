"""Caller tokens: signed JWTs (RFC 7519, EdDSA of RFC 8037) that name who calls, for which tenant, and what they may do.

Verification is strict (RFC 8725): one algorithm, keys only from the key set, every claim required and of its type.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import jwt

from chassis.auth.keys import KeyFileError, KeySet
from chassis.auth.refusals import Refused
from chassis.config import Auth, show
from chassis.context import Caller
from chassis.errors import ApiError, unauthenticated

MOST_BYTES: Final = 8 * 1024
"""A longer token is refused before a byte of it is parsed."""

SERVICES: Final = ("sessions", "users", "devices", "audit", "events")
LEVELS: Final = ("read", "write", "admin")
ALL_SCOPES: Final = tuple(f"{service}:admin" for service in SERVICES)
"""What `bas token` grants unless told otherwise: everything, by name. There is no wildcard."""

_ALGORITHM: Final = "EdDSA"
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED: Final = ("iss", "aud", "sub", "tenant", "scope", "exp", "iat")
_TENANT: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_SUBJECT: Final = re.compile(r"[^\x00-\x20\x7f-\x9f]{1,256}")
_SCOPE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}:[a-z]{1,32}")
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_OPTIONS: Final[Mapping[str, Any]] = {
    # Times are judged by the injected clock, and the registered claims by the stricter rules below.
    "verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False, "verify_iss": False,
    "verify_sub": False, "verify_jti": False, "require": list(_REQUIRED),
}  # fmt: skip


def missing() -> ApiError:
    return unauthenticated("TOKEN_MISSING", "A caller token is required: authorization: Bearer <token>.")


def invalid() -> ApiError:
    return unauthenticated("TOKEN_INVALID", "The caller token is not valid.")


def expired(caller: Caller) -> Refused:
    answer = unauthenticated("TOKEN_EXPIRED", "The caller token has expired.")
    return Refused(answer, answer.reason, caller)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new token says. `ttl` is in seconds; scopes are as granted, not expanded."""

    tenant: str
    subject: str
    scopes: tuple[str, ...] = ALL_SCOPES
    ttl: float = 3600.0
    session_id: str = ""
    token_id: str = ""


def mint(keys: KeySet, auth: Auth, grant: Grant, now: datetime) -> str:
    """A signed token that `verify` accepts from `now` on. Raises ValueError naming what is malformed in the grant, and
    KeyFileError if the keys are public ones."""
    if keys.signing is None:
        raise KeyFileError("The key file has no private key to sign with: let BAS_AUTH_KEYS name one that has.")
    _check(grant, auth)
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": auth.issuer,
        "aud": auth.audience,
        "sub": grant.subject,
        "tenant": grant.tenant,
        "scope": " ".join(grant.scopes),
        "iat": issued,
        "exp": issued + math.ceil(grant.ttl),
    }
    if grant.session_id:
        claims["sid"] = grant.session_id
    if grant.token_id:
        claims["jti"] = grant.token_id
    return jwt.encode(claims, keys.signing.private, algorithm=_ALGORITHM, headers={"kid": keys.signing.kid})


def verify(token: str, keys: KeySet, auth: Auth, now: datetime) -> Caller:
    """The caller that `token` names. Raises UNAUTHENTICATED with TOKEN_INVALID or TOKEN_EXPIRED, never saying which
    rule a bad token broke; as Refused where only its times are wrong. A token for another issuer or audience is no
    such: the tenant that it names is not one of this deployment."""
    if len(token) > MOST_BYTES or not _COMPACT.fullmatch(token):
        raise invalid()
    try:
        header = jwt.get_unverified_header(token)
        key = keys.verifying.get(header["kid"])
        if key is None or header["alg"] != _ALGORITHM or not header.keys() <= _HEADERS:
            raise invalid()
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options=dict(_OPTIONS))  # type: ignore[arg-type]  # the TypedDict is private
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError):
        raise invalid() from None
    return _caller(claims, auth, now.timestamp())


def key_id(token: str) -> str | None:
    """The `kid` that an unverified token claims, or None: for deciding whether the key file is worth another look."""
    if len(token) > MOST_BYTES:
        return None
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return kid if isinstance(kid, str) else None


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """Every scope that is granted or included: `devices:admin` brings `devices:write` and `devices:read`."""
    granted = set()
    for scope in scopes:
        granted.add(scope)
        service, _, level = scope.partition(":")
        if level in LEVELS:
            granted.update(f"{service}:{lower}" for lower in LEVELS[: LEVELS.index(level)])
    return frozenset(granted)


def _caller(claims: Mapping[str, Any], auth: Auth, now: float) -> Caller:
    audience = claims["aud"]
    session = claims.get("sid", "")
    not_before = _moment(claims.get("nbf", claims["iat"]))
    issued, expires = _moment(claims["iat"]), _moment(claims["exp"])
    scopes = claims["scope"].split(" ") if isinstance(claims["scope"], str) and claims["scope"] else []
    sound = (
        claims["iss"] == auth.issuer
        and (audience == auth.audience or (isinstance(audience, list) and auth.audience in audience))
        and _is(_TENANT, claims["tenant"])
        and _is(_SUBJECT, claims["sub"])
        and (session == "" or _is(_SUBJECT, session))
        and isinstance(claims["scope"], str)
        and all(_is(_SCOPE, scope) for scope in scopes)
    )
    if not sound:
        raise invalid()
    caller = Caller(claims["tenant"], claims["sub"], expand(scopes), expires, session)
    if issued > now + auth.leeway or not_before > now + auth.leeway:
        raise Refused(invalid(), "TOKEN_NOT_YET_VALID", caller)
    if not 0 < expires - issued <= auth.max_ttl:
        raise Refused(invalid(), "TOKEN_LIFE_TOO_LONG", caller)
    if now >= expires + auth.leeway:
        raise expired(caller)
    return caller


def _moment(value: object) -> float:
    """A NumericDate. NaN, infinities, booleans and text are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid()
    try:
        moment = float(value)
    except OverflowError:
        raise invalid() from None
    if not math.isfinite(moment):
        raise invalid()
    return moment


def _is(pattern: "re.Pattern[str]", value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check(grant: Grant, auth: Auth) -> None:
    known = {f"{service}:{level}" for service in SERVICES for level in LEVELS}
    if not _is(_TENANT, grant.tenant):
        raise ValueError(f"tenant {grant.tenant!r} is not 1 to 128 of A-Z a-z 0-9 . _ ~ -")
    if not _is(_SUBJECT, grant.subject):
        raise ValueError(f"subject {grant.subject!r} is not 1 to 256 characters without spaces and control characters")
    for scope in grant.scopes:
        if scope not in known:
            raise ValueError(f"scope {scope!r} is not one of {', '.join(sorted(known))}")
    if not 1 <= grant.ttl <= auth.max_ttl:
        raise ValueError(f"ttl {grant.ttl:g}s is not from 1s to {show(auth.max_ttl)} (BAS_AUTH_MAX_TTL)")
