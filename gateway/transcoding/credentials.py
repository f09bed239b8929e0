"""What the OpenAPI document says of credentials: the kinds there are, and the two operations on the session cookie, which
are the gateway's own."""

from collections.abc import Iterable
from typing import Any, Final

from gateway.cookies import NAME

BEARER: Final = "callerToken"
SESSION: Final = "sessionToken"
COOKIE: Final = "sessionCookie"

SCHEMES: Final[dict[str, Any]] = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A caller token: a signed JWT that names a tenant, a caller and scopes.",
    },
    SESSION: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "bas_…",
        "description": "A session token, as CreateSession gave it: the session's user, with the session's scopes.",
    },
    COOKIE: {
        "type": "apiKey",
        "in": "cookie",
        "name": NAME,
        "description": "A session token in the cookie that `POST /api/v2/sessions:cookie` sets. For browsers: what "
        "changes something is accepted from pages of the same origin only (403 CROSS_SITE_REQUEST).",
    },
}
ANY: Final[list[dict[str, list[str]]]] = [{BEARER: []}, {SESSION: []}, {COOKIE: []}]
"""One of them is enough."""
OPTIONAL: Final[list[dict[str, list[str]]]] = [{BEARER: []}, {}]
"""Of methods that go by the token in their body."""

_PROBLEM: Final = {"$ref": "#/components/responses/Problem"}
_SET: Final = {
    "description": "Done.",
    "headers": {"Set-Cookie": {"description": f"The `{NAME}` cookie.", "schema": {"type": "string"}}},
}


def cookie_paths(versions: Iterable[str]) -> dict[str, Any]:
    """The paths of the cookie, in each of the versions."""
    return {f"/api/{version}/sessions:cookie": _operations(version) for version in versions}


def _operations(version: str) -> dict[str, Any]:
    parameters = [{"$ref": "#/components/parameters/RequestId"}]
    token = {
        "type": "object",
        "properties": {"token": {"type": "string", "description": "The session token."}},
        "additionalProperties": False,
    }
    return {
        "post": {
            "operationId": f"gateway_{version}_SetSessionCookie",
            "tags": ["sessions"],
            "summary": "Keeps a session token in the browser, as a cookie that no script can read",
            "description": "The token is in the body or is the bearer. The session stays what it is; the cookie lasts "
            "as long as the session may at most.",
            "parameters": parameters,
            "requestBody": {"content": {"application/json": {"schema": token}}},
            "responses": {"204": _SET, "default": _PROBLEM},
            "security": [{SESSION: []}, {}],
        },
        "delete": {
            "operationId": f"gateway_{version}_ClearSessionCookie",
            "tags": ["sessions"],
            "summary": "Takes the session cookie away",
            "description": "The session goes on: RevokeSession ends it.",
            "parameters": parameters,
            "responses": {"204": _SET, "default": _PROBLEM},
            "security": [{}],
        },
    }
