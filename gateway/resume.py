"""Where a stream goes on: what an EventSource says of it, as the `cursor` of the request.

A browser sends the `Last-Event-ID` header when it comes back by itself. It cannot send one when it begins, so that a
page which knows a position says `last_event_id` in the query. The header wins: it is the newer of the two, and both win
over `cursor`, with which the page's URL once began.
"""

from typing import Final
from urllib.parse import quote

from chassis.errors import invalid_field
from gateway.transcoding.query import pairs

CURSOR: Final = "cursor"
HEADER: Final = "Last-Event-ID"
PARAMETER: Final = "last_event_id"
_NAMES: Final = frozenset({PARAMETER, "lastEventId"})


def resumed(query: bytes, header: str) -> bytes:
    """`query` with the position as its `cursor`, and nothing else of the three. Raises ApiError, naming the parameter,
    for one that is given twice, and for a query that is malformed."""
    if not header and not any(name.encode() in query for name in _NAMES):
        return query
    said: dict[str, str] = {}
    rest: list[tuple[str, str]] = []
    for name, value in pairs(query):
        known = PARAMETER if name in _NAMES else name
        if known not in (PARAMETER, CURSOR):
            rest.append((name, value))
        elif known in said:
            raise invalid_field(name, "The parameter is given twice.")
        else:
            said[known] = value
    position = header or said.get(PARAMETER) or said.get(CURSOR)
    if position:
        rest.append((CURSOR, position))
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in rest).encode("ascii")


def _quoted(text: str) -> str:
    return quote(text, safe="*.,:[]")
