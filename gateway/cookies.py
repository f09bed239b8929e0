"""The session cookie (RFC 6265 and its successor draft): its name, its attributes, and reading it."""

from ipaddress import ip_address
from typing import Final

from chassis.errors import ApiError, Code
from gateway.request import Request

NAME: Final = "bas_session"
ATTRIBUTES: Final = "Path=/; HttpOnly; SameSite=Lax"
"""Of every session cookie. `Secure` and `Max-Age` depend on the request and on the session."""

_NAME: Final = NAME.encode()
_PROXIED: Final = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"via")


def session_cookie(request: Request) -> str | None:
    """The value of the request's session cookie, None without one. Raises ApiError (COOKIE_AMBIGUOUS) for two that
    differ: another site of the same domain may have set one of them."""
    if b"cookie" not in request.headers:
        return None
    found = {
        value.strip()
        for name, line in request.all_headers
        if name == b"cookie"
        for key, _, value in (pair.partition(b"=") for pair in line.split(b";"))
        if key.strip() == _NAME
    }
    if len(found) > 1:
        raise ApiError(Code.INVALID_ARGUMENT, "COOKIE_AMBIGUOUS", f"There are two different {NAME} cookies.")
    return found.pop().decode("latin-1") if found else None


def set_cookie(value: str, max_age: int, *, secure: bool) -> tuple[bytes, bytes]:
    """The header that sets the cookie for `max_age` seconds; 0 takes it away."""
    text = f"{NAME}={value}; Max-Age={max_age}; {ATTRIBUTES}{'; Secure' if secure else ''}"
    return b"set-cookie", text.encode("ascii")


def secure(request: Request) -> bool:
    """Whether the cookie must be `Secure`: always, but for a browser that talks to this very machine.

    That is so when `Host` names a loopback address and nothing says that a proxy or TLS is in between. What a client
    claims of a proxy can thus only make the cookie stricter, so nobody has to be trusted for it.
    """
    headers = request.headers
    if any(name in headers for name in _PROXIED) or request.header(b"origin").startswith("https:"):
        return True
    return not _loopback(host_name(request.header(b"host")))


def host_name(authority: str) -> str:
    """The host of `host:port`, in lower case and without brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
