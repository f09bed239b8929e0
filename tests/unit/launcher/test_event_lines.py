"""Events as lines of text."""

import asyncio
import os
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Value

from bas.events.v2.events_pb2 import CloudEvent, LoggedEvent
from launcher.event_lines import BadLine, event_of, human, read_lines


def read(line: str) -> CloudEvent:
    return event_of(line.encode(), new_id=lambda: "new")


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"1","source":"/s","type":"t","data":{"a":[1,null]},"shop":"x"}',
        '{"id":"1","source":"/s","type":"t","data":{"a":[1,null]},"extensions":{"shop":"x"}}',
        '{"cursor":"c","event":{"id":"1","source":"/s","type":"t","tenantid":"z","data":{"a":[1,null]},"shop":"x"}}',
    ],
)
def test_the_forms_of_a_line(line: str) -> None:
    event = read(line)
    assert (event.id, event.source, event.type, event.specversion) == ("1", "/s", "t", "1.0")
    assert event.extensions["shop"].string_value == "x"
    assert event.data.struct_value.fields["a"].list_value.values[0].number_value == 1
    assert (event.sequence, event.tenantid) == ("", "")


def test_an_id_is_made_where_there_is_none() -> None:
    assert read('{"source":"/s","type":"t"}').id == "new"
    assert read('{"source":"/s","type":"t","data":null}').data == Value(null_value=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line", ["", "[]", "7", '"x"', "{", '{"type":7}', '{"time":"now"}', '{"extensions":7}', '{"data_base64":7}']
)
def test_what_is_no_event(line: str) -> None:
    with pytest.raises(BadLine):
        read(line)


def test_a_line_for_people_obeys_nothing() -> None:
    event = CloudEvent(type="t", subject="d/1\n\x1b[31m\u2028", source="/s", data=Value(string_value="é\x07\U0001f600"))
    line = human(LoggedEvent(event=event))
    assert line.isprintable()
    assert "\\n\\x1b[31m\\u2028" in line
    assert "é" in line
    assert "\U0001f600" in line
    long = human(LoggedEvent(event=CloudEvent(type="t", source="/s", data=Value(string_value="x" * 10_000))))
    assert len(long) < 400
    assert "(3 bytes)" in human(LoggedEvent(event=CloudEvent(type="t", source="/s", data_base64=b"abc")))


async def lines(fd: int) -> list[bytes]:
    return [line async for some in read_lines(fd) for line in some]


async def test_lines_of_a_file_and_of_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\ntwo" + b"x" * 300_000 + b"\nend")
    expected = path.read_bytes().split(b"\n")
    with path.open("rb") as file:
        assert await lines(file.fileno()) == expected
    out, into = os.pipe()
    try:
        async with asyncio.timeout(30):
            reading = asyncio.create_task(lines(out))
            await asyncio.to_thread(os.write, into, b"one\ntw")
            await asyncio.to_thread(os.write, into, b"o\n")
            os.close(into)
            assert await reading == [b"one", b"two"]
    finally:
        os.close(out)


async def test_a_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 3_000_000)
    with path.open("rb") as file, pytest.raises(BadLine):
        await lines(file.fileno())
