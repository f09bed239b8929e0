"""The reader that all tests of event streams trust, held to the examples of the standard."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.support.sse import Parser, parse


def test_examples_of_the_standard() -> None:
    events = parse(b"data: YHOO\ndata: +2\ndata: 10\n\n").events
    assert [each.data for each in events] == ["YHOO\n+2\n10"]
    read = parse(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n")
    assert [(each.data, each.last_event_id) for each in read.events] == [
        ("first event", "1"),
        ("second event", ""),
        (" third event", ""),
    ]
    assert [each.data for each in parse(b"data\n\ndata\ndata\n\ndata:").events] == ["", "\n"]


def test_an_id_without_data_is_remembered_and_dispatches_nothing() -> None:
    read = parse(b"id: 7\n\n")
    assert (read.events, read.last_event_id) == ([], "7")
    assert parse(b"id: 7\nid: a\0b\n\n").last_event_id == "7"
    assert parse(b"id: 7\n").last_event_id == ""


def test_retry_is_digits_only() -> None:
    assert [parse(text).retry for text in (b"retry: 15\n", b"retry: 1.5\n", b"retry: -1\n")] == [15, None, None]


@given(
    lines=st.lists(st.sampled_from([b"data: a", b"data: \xc3\xa9", b"id: 1", b"event: x", b": c", b"retry: 5", b""])),
    ends=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n"]), min_size=40, max_size=40),
    cuts=st.lists(st.integers(0, 200)),
    marked=st.booleans(),
)
def test_chunks_and_line_ends_make_no_difference(
    lines: list[bytes], ends: list[bytes], cuts: list[int], *, marked: bool
) -> None:
    plain = parse(b"".join(line + b"\n" for line in lines[:40]))
    stream = b"\xef\xbb\xbf" if marked else b""
    for line, end in zip(lines, ends, strict=False):
        merges = not line and end == b"\n" and stream.endswith(b"\r")  # into one CRLF with the end before
        stream += line + (b"\r" if merges else end)
    parser = Parser()
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, until in pairwise(at):
        parser.feed(stream[begin:until])
    assert (parser.events, parser.retry, parser.comments) == (plain.events, plain.retry, plain.comments)
