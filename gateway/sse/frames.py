"""The text of an event stream (WHATWG HTML, §9.2): what is written once and goes to every connection as it is.

An event's `data` is the CloudEvents 1.0 JSON format of it (structured mode), `event` its type, `id` its cursor.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from google.protobuf.struct_pb2 import Value

from bas.events.v2.events_pb2 import CloudEvent, Gap, GapReason, LoggedEvent
from bas.events.v2.events_service_pb2 import EndReason
from chassis.api.cursors import Position, parse

_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")
_UNSAFE: Final = re.compile(r"[\r\n\0]")
_TEXT: Final = ("type", "subject", "datacontenttype", "dataschema", "sequence", "partitionkey", "traceparent")
_RESERVED: Final = frozenset({*_TEXT, "id", "source", "specversion", "time", "data", "data_base64", "tenantid"})

COMMENT: Final = b":\n\n"
"""Shows that the stream lives, and nothing else."""

GAP: Final = "\0gap"
"""The subject of a gap's frame: no event has a NUL in it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, or one gap, as it is sent. `position` is just after it; `cursor` is that, as callers hold it. A frame
    without `data` only marks a position that the log has come to."""

    position: Position
    cursor: str
    subject: str
    data: bytes


def text(*, event: str = "", data: str | None = None, id: str = "", retry: float | None = None) -> bytes:  # noqa: A002 - the field's name
    """One block of a stream, ended by its empty line. `retry` is in seconds. An `id` or `event` that could break out of
    its line is left out: what it says is nothing that was asked for."""
    lines = []
    if retry is not None:
        lines.append(f"retry: {max(0, round(retry * 1000))}")
    if id and not _UNSAFE.search(id):
        lines.append(f"id: {id}")
    if event and not _UNSAFE.search(event):
        lines.append(f"event: {event}")
    if data is not None:
        lines += [f"data: {line}" for line in _LINE_ENDS.split(data.replace("\0", "\ufffd"))]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def event_frame(logged: LoggedEvent) -> Frame | None:
    """None when its cursor is none: a stream could not go on after it."""
    position = parse(logged.cursor)
    if position is None:
        return None
    event = logged.event
    document = json.dumps(cloud_event(event), ensure_ascii=False, separators=(",", ":"))
    return Frame(position, logged.cursor, event.subject, text(id=logged.cursor, event=event.type, data=document))


def event_frames(logged: Iterable[LoggedEvent]) -> list[Frame]:
    """Those of a page."""
    return [frame for frame in map(event_frame, logged) if frame is not None]


def mark(cursor: str) -> Frame | None:
    """The position of a cursor, with nothing to send."""
    position = parse(cursor)
    return None if position is None else Frame(position, cursor, "", b"")


def gap_frame(gap: Gap) -> Frame | None:
    """A gap, announced; the stream goes on from its cursor. None when that is none."""
    position = parse(gap.cursor)
    return None if position is None else Frame(position, gap.cursor, GAP, gap_text(gap))


def gap_text(gap: Gap) -> bytes:
    """`event: gap`, whose data is the JSON of a Gap."""
    told = {
        "reason": GapReason.Name(gap.reason) if gap.reason in GapReason.values() else gap.reason,
        "firstCursor": gap.first_cursor,
        "missingCount": str(gap.missing_count),
        "cursor": gap.cursor,
    }
    return text(id=gap.cursor, event="gap", data=json.dumps(told, separators=(",", ":")))


def warning_text(reason: int) -> bytes:
    """`event: warning`: the end is near."""
    return text(event="warning", data=json.dumps({"reason": EndReason.Name(reason)}, separators=(",", ":")))  # type: ignore[arg-type]  # an EndReason


def end_text(reason: int, cursor: str, retry: float | None = None) -> bytes:
    """`event: end`, the last of a stream: why, from where to go on, and after how many seconds."""
    told = {"reason": EndReason.Name(reason), "cursor": cursor}  # type: ignore[arg-type]  # an EndReason
    return text(id=cursor, event="end", data=json.dumps(told, separators=(",", ":")), retry=retry)


def joined(frames: Sequence[Frame]) -> bytes:
    """All of them, for one write."""
    return frames[0].data if len(frames) == 1 else b"".join([frame.data for frame in frames])


def cloud_event(event: CloudEvent) -> dict[str, Any]:
    """The JSON format of CloudEvents 1.0 (§3): attributes that are not set are absent, extensions stand beside the
    others."""
    document: dict[str, Any] = {"specversion": event.specversion or "1.0", "id": event.id, "source": event.source}
    for name in _TEXT:
        value = getattr(event, name)
        if value:
            document[name] = value
    if event.HasField("time"):
        document["time"] = event.time.ToJsonString()
    if event.tenantid:
        document["tenantid"] = event.tenantid
    for name, value in event.extensions.items():
        if name not in _RESERVED:
            document[name] = _json(value)
    if event.data_base64:
        document["data_base64"] = b64encode(event.data_base64).decode()
    elif event.HasField("data"):
        document["data"] = _json(event.data)
    return document


def _json(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "struct_value":
        return {name: _json(each) for name, each in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_json(each) for each in value.list_value.values]
    return value.bool_value if kind == "bool_value" else None


def _number(number: float) -> float | int | str:
    """What is whole is written without a fraction, as in proto3 JSON; what JSON has no number for, as text."""
    if not isfinite(number):
        return str(number)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
