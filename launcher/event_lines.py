"""Events as lines: as people read them, and as JSON on standard input."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError

from bas.events.v2.events_pb2 import CloudEvent, LoggedEvent
from gateway.sse.frames import cloud_event

Lines = AsyncIterator[Sequence[bytes]]
"""As many lines at a time as there are."""

_CHUNK: Final = 256 * 1024
_LONGEST: Final = 1024 * 1024
_DATA_SHOWN: Final = 200
_ATTRIBUTES: Final = frozenset(field.json_name for field in CloudEvent.DESCRIPTOR.fields)
_SET_BY_PLATFORM: Final = ("sequence", "tenantid")


class BadLine(Exception):
    """A line that is no event; the message says why."""


def human(logged: LoggedEvent) -> str:
    """Time, type, subject, source, and the data as far as they fit. Control characters are shown, not obeyed."""
    event = logged.event
    data = json.dumps(cloud_event(event)["data"], ensure_ascii=False) if event.HasField("data") else ""
    if event.data_base64:
        data = f"({len(event.data_base64)} bytes)"
    if len(data) > _DATA_SHOWN:
        data = data[:_DATA_SHOWN] + "…"
    time = event.time.ToDatetime().isoformat(timespec="milliseconds") + "Z" if event.HasField("time") else "-"
    words = (time, f"{event.type:<18}", f"{event.subject or '-':<24}", event.source, data)
    return _printable("  ".join(word for word in words if word))


def event_of(line: bytes, *, new_id: Callable[[], str]) -> CloudEvent:
    """The CloudEvent of a line of JSON: as in CloudEvents, or with `extensions` apart, or `{"cursor": …, "event": …}`.
    Raises BadLine."""
    try:
        document = json.loads(line)
    except ValueError as problem:
        raise BadLine(f"no JSON ({problem}).") from None
    if isinstance(document, dict) and "type" not in document and isinstance(document.get("event"), dict):
        document = document["event"]
    if not isinstance(document, dict):
        raise BadLine("an event, which is a JSON object, is expected.")
    made: dict[str, Any] = {"specversion": "1.0", "id": new_id()}
    given = document.get("extensions") or {}
    if not isinstance(given, dict):
        raise BadLine("extensions is an object.")
    extensions = dict(given)
    for name, value in document.items():
        if name in _SET_BY_PLATFORM or name == "extensions":
            continue
        (made if name in _ATTRIBUTES else extensions)[name] = value
    if extensions:
        made["extensions"] = extensions
    try:
        return ParseDict(made, CloudEvent())
    except (ParseError, ValueError, TypeError) as problem:
        raise BadLine(f"no event ({problem}).") from None


async def read_lines(fd: int) -> Lines:
    """The lines of a file, a pipe or a terminal, as they come; waits in the loop, so that a signal ends the wait. Raises
    BadLine for one that is longer than an event may be."""
    rest = b""
    while True:
        await _readable(fd)
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise BadLine("a line is longer than an event may be.")
        if lines:
            yield lines
    if rest:
        yield [rest]


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, readable.set_result, None)
    except PermissionError:  # a file, which is always readable
        return
    try:
        await readable
    finally:
        loop.remove_reader(fd)


def _printable(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode("ascii")
        for each in text
    )
