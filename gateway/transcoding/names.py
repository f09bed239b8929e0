"""Field paths as a client of the JSON API reads them."""

import re
from difflib import get_close_matches
from typing import Final

from chassis.errors import ApiError, Violation
from gateway.transcoding.schema import Message

_SNAKE: Final = re.compile(r"_([a-z0-9])")
_QUOTED: Final = re.compile(r'("(?:[^"\\]|\\.)*")')


def join(at: str, name: str) -> str:
    """`device` and `labels` → `device.labels`; the name is cut to what a message can bear."""
    name = name if len(name) <= 64 else name[:64] + "…"  # noqa: PLR2004 - a message, not a mirror
    return f"{at}.{name}" if at else name


def nearest(name: str, message: Message) -> str:
    """` (did you mean "pageSize"?)`, or "" when nothing is near."""
    names = sorted({field.json_name for field in message.fields} | {field.name for field in message.fields})
    near = get_close_matches(name[:64], names, n=1)
    return f" (did you mean {message.by_name[near[0]].json_name!r}?)" if near else ""


def json_path(path: str) -> str:
    """A path of proto names with its names in JSON spelling; map keys in quotes stay as they are.

    `device.display_name` → `device.displayName`, `labels["a_b"]` → `labels["a_b"]`.
    """
    if "_" not in path:
        return path
    pieces = _QUOTED.split(path)
    return "".join(
        piece if piece.startswith('"') else _SNAKE.sub(lambda match: match[1].upper(), piece) for piece in pieces
    )


def sent_path(path: str, body: str) -> str:
    """A path from the request message on, as whoever sent the message's field `body` as the HTTP body knows it; "" is
    no such field.

    `device.display_name` with the body `device` → `displayName`, `device` → `body`.
    """
    path = json_path(path)
    if not body:
        return path
    body = json_path(body)
    return "body" if path == body else path.removeprefix(f"{body}.")


def as_sent(error: ApiError, body: str) -> ApiError:
    """`error` with its violations under the names of `sent_path`."""
    if not error.violations:
        return error
    first = error.violations[0].field
    message = error.message
    if first and message.startswith(first):
        message = sent_path(first, body) + message[len(first) :]
    return ApiError(
        error.code,
        error.reason,
        message,
        violations=tuple(Violation(sent_path(each.field, body), each.description) for each in error.violations),
        metadata=error.metadata,
        retry_after=error.retry_after,
    )
