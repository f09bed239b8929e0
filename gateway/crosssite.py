"""Requests that another site made a browser send (CSRF). A browser adds the cookie by itself, so a cookie alone must not
change anything unless the request comes from this origin's own pages.

Sources: W3C Fetch Metadata (`Sec-Fetch-Site`), RFC 6454 §7 (`Origin`).
"""

from typing import Final

from chassis.errors import ApiError, Code
from gateway.request import Request

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing (RFC 9110 §9.2.1)."""

_OWN: Final = frozenset({b"same-origin", b"none"})
_PORTS: Final = {"http": ":80", "https": ":443"}


def own_origin(request: Request) -> bool | None:
    """Whether a page of this origin, or the user at the address bar, sent it; None when the request does not say, as
    of a client that is no browser. `Sec-Fetch-Site` decides where it is: a page cannot set it."""
    site = request.headers.get(b"sec-fetch-site")
    if site is not None:
        return site in _OWN
    origin = request.headers.get(b"origin")
    if origin is None:
        return None
    scheme, found, authority = origin.decode("latin-1").lower().partition("://")
    port = _PORTS.get(scheme)
    if not found or port is None or not authority:
        return False
    host = request.header(b"host").lower()
    return authority.removesuffix(port) == host.removesuffix(port)


def refused() -> ApiError:
    return ApiError(
        Code.PERMISSION_DENIED,
        "CROSS_SITE_REQUEST",
        "With the session cookie, changes are accepted from this site's own pages only; send the session token as"
        " Authorization: Bearer instead.",
    )
