"""Caller tokens, good and bad."""

import base64
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.auth import tokens
from chassis.auth.tokens import ALL_SCOPES, Grant
from chassis.clock import SystemClock
from tests.isolation.cases import Owned
from tests.isolation.deployment import Deployment
from tests.isolation.wire import Headers

REFUSED: Final[Mapping[str, str]] = {
    "no credential": "TOKEN_MISSING",
    "another scheme": "TOKEN_MISSING",
    "malformed": "TOKEN_INVALID",
    "cut": "TOKEN_INVALID",
    "expired": "TOKEN_EXPIRED",
    "session token": "TOKEN_INVALID",
    "wrong audience": "TOKEN_INVALID",
    "wrong issuer": "TOKEN_INVALID",
    "foreign key": "TOKEN_INVALID",
    "foreign key under our name": "TOKEN_INVALID",
    "unsigned": "TOKEN_INVALID",
    "no tenant": "TOKEN_INVALID",
    "two tenants": "TOKEN_INVALID",
    "tenant put in": "TOKEN_INVALID",
}
"""Kind of bad credential → what a service refuses it with. The gateway takes session tokens."""


def bearer(deployment: Deployment, tenant: str, *scopes: str) -> Headers:
    """A good one; with everything, unless scopes are named (`""`: none)."""
    granted = tuple(filter(None, scopes)) if scopes else ALL_SCOPES
    grant = Grant(tenant, "me", granted)
    return as_bearer(tokens.mint(deployment.keys, deployment.auth, grant, SystemClock().now()))


def bad(deployment: Deployment, kind: str, own: Owned, other: str) -> Headers:
    """A credential of that kind, good for the tenant but for one thing; `other` is a tenant that exists as well."""
    tenant = own.tenant
    now = SystemClock().now()
    good = tokens.mint(deployment.keys, deployment.auth, Grant(tenant, "me"), now)
    if kind == "no credential":
        return ()
    if kind == "another scheme":
        return (("authorization", f"Basic {good}"),)
    if kind == "expired":
        early = now - timedelta(hours=2)
        return as_bearer(tokens.mint(deployment.keys, deployment.auth, Grant(tenant, "me", ttl=60.0), early))
    altered = {
        "malformed": "a.b.c",
        "session token": own.token or "bas_none_of_these",
        "cut": good[:-8],
        "tenant put in": _altered(good, tenant=other),
    }
    return as_bearer(altered.get(kind) or _signed(deployment, kind, good, other))


def _signed(deployment: Deployment, kind: str, good: str, other: str) -> str:
    """The claims of a good token, but for what is wrong, signed by a key that may be wrong."""
    signing = deployment.keys.signing
    assert signing is not None
    claims = jwt.decode(good, options={"verify_signature": False})
    match kind:
        case "wrong audience":
            claims["aud"] = "others"
        case "wrong issuer":
            claims["iss"] = "others"
        case "no tenant":
            del claims["tenant"]
        case "two tenants":
            claims["tenant"] = [claims["tenant"], other]
        case "unsigned":
            return f"{_encoded({'alg': 'none', 'kid': signing.kid})}.{_encoded(claims)}.AA"
        case "foreign key" | "foreign key under our name":
            stranger = Ed25519PrivateKey.from_private_bytes(os.urandom(32))
            kid = "stranger" if kind == "foreign key" else signing.kid
            return jwt.encode(claims, stranger, algorithm="EdDSA", headers={"kid": kid})
        case _:
            raise AssertionError(kind)
    return jwt.encode(claims, signing.private, algorithm="EdDSA", headers={"kid": signing.kid})


def _altered(token: str, **changed: Any) -> str:
    """Other claims under the signature that there was."""
    head, claims, signature = token.split(".")
    there = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return f"{head}.{_encoded(there | changed)}.{signature}"


def _encoded(part: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def as_bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)
