"""What is written is what a strict reader reads, whatever an event says."""

import json
import re
from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from bas.events.v2.events_pb2 import GAP_REASON_TOO_OLD, CloudEvent, Gap, LoggedEvent
from bas.events.v2.events_service_pb2 import END_REASON_DRAINING
from chassis.api.cursors import Cursors, Position
from gateway.sse import frames
from gateway.sse.frames import cloud_event, end_text, event_frame, gap_frame, text
from tests.support.sse import parse

CURSOR = Cursors(bytes(32)).write("acme", Position("e1", 7))
_ANY = st.text(st.characters(codec="utf-8"))
_NASTY = st.text(st.sampled_from("a:\r\n\0 \u2028\u2029\ufeff\x85\x0bé"), max_size=12) | _ANY
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NASTY, inner, max_size=3),
    max_leaves=6,
)


def value(tree: object) -> Value:
    made = Value()
    if isinstance(tree, dict):
        made.struct_value.SetInParent()
        for name, each in tree.items():
            made.struct_value.fields[name].CopyFrom(value(each))
    elif isinstance(tree, list):
        made.list_value.SetInParent()
        made.list_value.values.extend(value(each) for each in tree)
    elif tree is None:
        made.null_value = 0  # type: ignore[assignment]  # NULL_VALUE
    elif isinstance(tree, bool):
        made.bool_value = tree
    elif isinstance(tree, float):
        made.number_value = tree
    else:
        made.string_value = str(tree)
    return made


@given(id_=_NASTY, source=_NASTY, subject=_NASTY, tree=_JSON, extension=_NASTY)
def test_an_event_is_one_event_with_its_json(id_: str, source: str, subject: str, tree: object, extension: str) -> None:
    event = CloudEvent(id=id_, source=source, type="device.online", subject=subject, data=value(tree))
    event.extensions["mine"].string_value = extension
    frame = event_frame(LoggedEvent(cursor=CURSOR, event=event))
    assert frame is not None
    (read,) = parse(frame.data).events
    assert (read.name, read.last_event_id) == ("device.online", CURSOR)
    document = json.loads(read.data)
    assert document.pop("data") == tree
    assert document.pop("subject", "") == subject
    assert document == {"specversion": "1.0", "id": id_, "source": source, "type": "device.online", "mine": extension}


@given(event=_NASTY, id_=_NASTY, data=_NASTY)
def test_nothing_breaks_out_of_its_field(event: str, id_: str, data: str) -> None:
    read = parse(text(event=event, id=id_, data=data) + text(data="next"))
    assert len(read.events) == 2
    first, second = read.events
    lines = data.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    assert (first.data, second.data, second.name) == (lines, "next", "message")
    assert first.name in (event or "message", "message")
    assert first.last_event_id in (id_, "")


def test_a_reader_catches_a_writer_that_lets_lines_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_UNSAFE", re.compile(r"(?!)"))
    read = parse(text(event="x\ndata: smuggled", data="told"))
    assert read.events[0].data != "told"


def test_attributes_are_those_of_cloud_events() -> None:
    event = CloudEvent(
        id="1",
        source="/s",
        type="t",
        sequence="7",
        tenantid="acme",
        traceparent="00-x",
        data_base64=b"\0\xff",
        datacontenttype="application/octet-stream",
    )
    event.time.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    event.extensions["count"].number_value = 3
    event.extensions["flag"].bool_value = True
    event.extensions["id"].string_value = "another"
    assert cloud_event(event) == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/octet-stream",
        "data_base64": "AP8=",
        "sequence": "7",
        "tenantid": "acme",
        "traceparent": "00-x",
        "count": 3,
        "flag": True,
    }


def test_numbers_are_written_as_proto3_json_writes_them() -> None:
    for number in (0.0, -1.0, 1.5, 1e21, 2.0**53, 1e-7):
        event = CloudEvent(data=Value(number_value=number))
        assert cloud_event(event)["data"] == MessageToDict(event)["data"]
    assert cloud_event(CloudEvent(data=Value(number_value=float("nan"))))["data"] == "nan"


def test_a_gap_and_an_end_say_where_to_go_on() -> None:
    gap = gap_frame(Gap(reason=GAP_REASON_TOO_OLD, missing_count=3, first_cursor="f", cursor=CURSOR))
    assert gap is not None
    read = parse(gap.data + end_text(END_REASON_DRAINING, CURSOR, 2.5))
    assert json.loads(read.events[0].data) == {
        "reason": "GAP_REASON_TOO_OLD",
        "firstCursor": "f",
        "missingCount": "3",
        "cursor": CURSOR,
    }
    assert json.loads(read.events[1].data) == {"reason": "END_REASON_DRAINING", "cursor": CURSOR}
    assert (read.retry, read.last_event_id) == (2500, CURSOR)


def test_an_event_whose_cursor_is_none_is_not_sent() -> None:
    assert event_frame(LoggedEvent(cursor="x\ny", event=CloudEvent(id="1"))) is None
    assert gap_frame(Gap(cursor="")) is None
