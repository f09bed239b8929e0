"""Conditional requests (RFC 9110 §13): `etag` fields as `ETag`, `If-Match` and `If-None-Match`."""

from typing import Final

from chassis.errors import invalid_field
from gateway.problems import precondition_failed

_MISMATCH: Final = "The resource is not the one that If-Match names: read it again and repeat the change."


def entity_tag(etag: str) -> bytes | None:
    """The `ETag` header of a resource's etag; None for one that a header cannot carry."""
    if not etag or '"' in etag or not etag.isascii() or not etag.isprintable() or " " in etag:
        return None
    return b'"' + etag.encode() + b'"'


def if_match(header: str) -> str:
    """The etag that an `If-Match` demands; "" for `*`. Raises ApiError: 412 for a weak tag, which matches nothing, 400
    for what is not one tag in quotes."""
    header = header.strip()
    if header == "*":
        return ""
    if header.startswith("W/"):
        raise precondition_failed(_MISMATCH)
    etag = header[1:-1]
    if len(header) < 3 or header[0] != '"' or header[-1] != '"' or '"' in etag:  # noqa: PLR2004 - quotes around one
        raise invalid_field("If-Match", 'One etag in quotes is expected: "…".')
    return etag


def unchanged(header: str, tag: bytes) -> bool:
    """Whether `If-None-Match` names the tag, by weak comparison."""
    if header.strip() == "*":
        return True
    wanted = tag.decode()
    return any(each.strip().removeprefix("W/") == wanted for each in header.split(","))
