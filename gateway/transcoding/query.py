"""The query string: names and values, decoded strictly (`application/x-www-form-urlencoded`, WHATWG URL §5.1, but a
malformed `%` and bytes that are not UTF-8 are errors)."""

from collections.abc import Iterator

from chassis.errors import invalid_field
from gateway.transcoding.template import MalformedPercent, decode


def pairs(query: bytes) -> Iterator[tuple[str, str]]:
    """Each `name=value` in order; a name alone has the value "". Raises ApiError naming the parameter."""
    try:
        text = query.decode("ascii")
    except UnicodeDecodeError:
        raise invalid_field("query", "Characters beyond ASCII are written percent-encoded.") from None
    for piece in text.split("&"):
        if not piece:
            continue
        name, _, value = piece.partition("=")
        try:
            plain = decode(name.replace("+", " "))
        except MalformedPercent:
            raise invalid_field("query", "A parameter's name has a malformed percent-encoding.") from None
        try:
            yield plain, decode(value.replace("+", " "))
        except MalformedPercent:
            raise invalid_field(plain, "The value has a malformed percent-encoding.") from None
