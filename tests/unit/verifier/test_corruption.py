"""Exports that were tampered with: what was done is found, and the entry it was done to is named."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.verifier.check import Older, check, first_difference
from launcher.verifier.lines import lines as lines_of
from launcher.verifier.note import parse, parse_key
from launcher.verifier.report import MOST_SHOWN, Report
from tests.support import audit_export as export

KEY = export.LogKey()
RECORDS = [export.record(number) for number in range(20)]
RECORDS[3] = export.erased(RECORDS[3])
RECORDS[5] = export.dropped(RECORDS[5])
LINES = export.written(RECORDS, KEY)


def checked(lines: Iterable[bytes], key: export.LogKey = KEY, older: Sequence[Older] = ()) -> Report:
    return check([line + b"\n" for line in lines], parse_key(key.vkey), older)


def older(size: int, records: Sequence[export.Line] = RECORDS, name: str = "kept.note") -> Older:
    return Older(parse(KEY.note(size, export.root_of([export.leaf(each) for each in records[:size]]))), name)


def tampered(number: int, change: Callable[[Any], None]) -> list[bytes]:
    """The lines, with the record of an entry changed in place."""
    lines = list(LINES)
    line = json.loads(lines[number + 1])
    change(line["entry"])
    lines[number + 1] = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
    return lines


def test_what_holds() -> None:
    report = checked(LINES, older=[older(7), older(1), older(20)])
    assert report.good, list(report.lines("it"))
    assert (report.entries, report.tree_size, report.erased, report.dropped) == (20, 20, 1, 1)
    assert report.origin == export.ORIGIN
    assert len(report.compared) == 3
    said = "\n".join(report.lines("it"))
    assert said.startswith("it: verified\n")
    assert "1 erased, 1 dropped by age" in said
    assert report.json()["verified"] is True


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257])
def test_logs_of_any_size(size: int) -> None:
    assert checked(export.written([export.record(number) for number in range(size)], KEY)).good


def test_json_that_is_laid_out_otherwise_says_the_same() -> None:
    assert checked([json.dumps(json.loads(line), sort_keys=True).encode() for line in LINES]).good


FIELDS = [
    ("entry", "entryId"),
    ("entry", "idempotencyKey"),
    ("entry", "action"),
    ("entry", "outcome"),
    ("entry", "reason"),
    ("entry", "occurTime"),
    ("entry", "recordTime"),
    ("entry", "requestId"),
    ("entry", "actor", "subject"),
    ("entry", "actor", "sessionId"),
    ("entry", "actor", "ip"),
    ("entry", "resource", "type"),
    ("entry", "resource", "id"),
    ("entry", "metadata", "paths"),
    ("personalSalt",),
    ("personalHash",),
    ("leafHash",),
]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_bit_in_any_field(path: tuple[str, ...]) -> None:
    def flip(record: Any) -> None:
        *above, name = path
        for each in above:
            record = record[each]
        text = record[name]
        record[name] = ("B" if text.startswith("A") else "A") + text[1:]

    report = checked(tampered(9, flip))
    first = report.findings[0]
    assert (first.kind, first.line, first.sequence) == ("altered", 11, 9), first
    assert "entry 9 (" in first.message
    assert len(report.findings) == 1
    hint = " ".join(report.hints)
    if path == ("leafHash",):
        assert "only their leafHash" in hint
    elif path[:2] != ("entry", "actor") and path != ("personalSalt",):
        assert "the entries named are what was altered" in hint


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["entry"].update(note="x"),
        lambda record: record.update(note="x"),
        lambda record: record["entry"].pop("reason"),
        lambda record: record["entry"].update(reason=7),
        lambda record: record["entry"].update(metadata=[]),
        lambda record: record["entry"].update(resource="d1"),
        lambda record: record["entry"].update(sequence="-9"),
        lambda record: record["entry"].update(sequence=9),
        lambda record: record.update(leafHash="AAAA"),
        lambda record: record.update(leafHash=record["leafHash"][:-2] + "B="),
        lambda record: record.update(personalHash="?"),
    ],
)
def test_a_line_that_is_no_entry(change: Callable[[Any], None]) -> None:
    report = checked(tampered(9, change))
    first = report.findings[0]
    assert first.line == 11, first
    assert first.kind in {"garbage", "altered"}
    assert first.sequence == 9


def test_a_name_twice_is_refused() -> None:
    lines = list(LINES)
    lines[10] = lines[10].replace(b'"action":"device.updated"', b'"action":"device.read","action":"device.updated"')
    report = checked(lines)
    assert "twice" in report.findings[0].message
    assert report.findings[0].sequence == 9
    lines[10] = LINES[10].replace(b'"metadata":{"paths"', b'"metadata":{"paths":"x","paths"')
    assert lines[10] != LINES[10]
    assert "twice" in checked(lines).findings[0].message


@pytest.mark.parametrize("part", ["actor", "personalSalt"])
def test_half_an_erasure_is_none(part: str) -> None:
    def erase(record: Any) -> None:
        if part == "actor":
            del record["entry"]["actor"]
        else:
            record["personalSalt"] = ""

    report = checked(tampered(9, erase))
    assert [(each.kind, each.sequence) for each in report.findings] == [("altered", 9)]


@pytest.mark.parametrize(
    ("number", "told"), [(0, "entry 0 is missing"), (9, "entry 9 is missing"), (19, "entry 19 is")]
)
def test_a_dropped_entry(number: int, told: str) -> None:
    report = checked(LINES[: number + 1] + LINES[number + 2 :])
    first = report.findings[0]
    assert told in first.message
    assert first.sequence == number
    assert first.kind == ("cut" if number == 19 else "missing")


def test_swapped_entries() -> None:
    lines = list(LINES)
    lines[10], lines[11] = lines[11], lines[10]
    report = checked(lines)
    (first,) = report.findings
    assert (first.kind, first.line, first.sequence) == ("out_of_order", 12, 9)
    assert "stands after entry 10" in first.message


@pytest.mark.parametrize(("place", "line"), [(11, 13), (12, 13)])
def test_an_inserted_entry(place: int, line: int) -> None:
    """Two claim to be entry 10, and either may be the one that does not belong there."""
    lines = list(LINES)
    extra = export.record(10, action="device.deleted", entryId="intruder")
    lines.insert(place, json.dumps({"entry": extra}, separators=(",", ":")).encode())
    report = checked(lines)
    first = report.findings[0]
    assert (first.kind, first.line, first.sequence) == ("inserted", line, 10)
    assert [each.kind for each in report.findings[1:]] == (["root"] if place == 11 else [])


def test_a_repeated_line() -> None:
    report = checked([*LINES[:11], LINES[10], *LINES[11:]])
    (first,) = report.findings
    assert (first.kind, first.line, first.sequence) == ("duplicate", 12, 9)


def test_an_entry_repeated_later() -> None:
    report = checked([*LINES[:15], LINES[10], *LINES[15:]])
    (first,) = report.findings
    assert (first.kind, first.line, first.sequence) == ("inserted", 16, 9)


def test_the_tail_cut_off() -> None:
    report = checked(LINES[:15])
    (first,) = report.findings
    assert (first.kind, first.sequence) == ("cut", 14)
    assert "entries 14 to 19 are missing" in first.message


def test_more_than_was_signed() -> None:
    extra = json.dumps({"entry": export.record(20)}, separators=(",", ":")).encode()
    report = checked([*LINES, extra])
    (first,) = report.findings
    assert (first.kind, first.sequence) == ("inserted", 20)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"entry":{}}', b"{}" * 9, b"[" * 100_000]
)
def test_a_garbage_line(garbage: bytes) -> None:
    added = checked([*LINES[:10], garbage, *LINES[10:]])
    (first,) = added.findings
    assert (first.kind, first.line, first.sequence) == ("garbage", 11, 9)
    instead = checked([*LINES[:10], garbage, *LINES[11:]])
    (first,) = instead.findings
    assert (first.kind, first.line, first.sequence) == ("garbage", 11, 9)


def test_a_file_that_ends_in_a_line() -> None:
    whole = b"\n".join(LINES) + b"\n"
    report = check(lines_of(io.BytesIO(whole[: whole.index(LINES[15]) + 40])), parse_key(KEY.vkey))
    assert "the file ends in the middle of it" in report.findings[0].message
    assert report.findings[0].sequence == 14


def test_a_line_without_end_takes_no_memory() -> None:
    file = io.BytesIO(LINES[0] + b"\n" + b"x" * (5 << 20) + b"\n" + b"\n".join(LINES[1:]))
    report = check(lines_of(file), parse_key(KEY.vkey))
    (first,) = report.findings
    assert (first.line, first.kind) == (2, "garbage")
    assert "longer than any entry" in first.message


def test_an_export_that_ended_with_an_error() -> None:
    report = checked([*LINES[:5], b'{"error":{"status":503}}'])
    assert "error of the export" in report.findings[0].message


def test_an_empty_file_and_one_without_checkpoint() -> None:
    assert [each.kind for each in checked([]).findings] == ["checkpoint"]
    report = checked(LINES[1:])
    assert report.findings[0].kind == "checkpoint"
    assert report.entries == 20


def test_signed_with_another_key() -> None:
    report = checked(export.written(RECORDS, export.LogKey(2)))
    (first,) = report.findings
    assert first.kind == "checkpoint"
    assert "another key" in first.message


def test_the_checkpoint_of_another_tenant() -> None:
    report = checked(export.written(RECORDS, export.LogKey(1, "bas/audit/umbra")))
    assert "of another log: 'bas/audit/umbra'" in report.findings[0].message


def test_a_forged_signature_under_the_keys_own_name() -> None:
    forger = export.LogKey(2)
    forger.id = KEY.id
    report = checked(export.written(RECORDS, forger))
    assert "signature that does not fit" in report.findings[0].message


@pytest.mark.parametrize("name", ["origin", "treeSize", "rootHash"])
def test_fields_that_are_not_those_of_the_note(name: str) -> None:
    head = json.loads(LINES[0])
    head["checkpoint"][name] = "7"
    report = checked([json.dumps(head).encode(), *LINES[1:]])
    assert [each.kind for each in report.findings] == ["checkpoint"]
    assert name in report.findings[0].message


@pytest.mark.parametrize("note", [None, 7, "", "x\n", "a\n1\n\n", KEY.note(20, b"x" * 31), KEY.note(-1, b"x" * 32)])
def test_a_note_that_is_none(note: Any) -> None:
    head = {"checkpoint": {"note": note}}
    report = checked([json.dumps(head).encode(), *LINES[1:]])
    assert report.findings[0].kind == "checkpoint"
    assert report.findings[0].line == 1


def rewritten() -> list[export.Line]:
    """History as someone would have it who makes all hashes anew."""
    return [*RECORDS[:9], export.record(9, action="device.read"), *RECORDS[10:]]


def test_altered_with_its_hash_only_the_root_tells() -> None:
    lines = export.written(rewritten(), KEY, note=json.loads(LINES[0])["checkpoint"]["note"])
    report = checked(lines)
    (first,) = report.findings
    assert first.kind == "root"
    assert "does not match the signed checkpoint" in first.message
    assert "--earlier" in report.hints[0]
    narrowed = checked(lines, older=[older(8), older(12)])
    assert "after entry 7, before entry 12" in narrowed.findings[0].message
    named = first_difference([line + b"\n" for line in lines], [line + b"\n" for line in LINES], "before.ndjson")
    assert named is not None
    assert (named.kind, named.sequence) == ("altered", 9)


def test_signed_again_by_the_holder_of_the_key_only_what_was_kept_tells() -> None:
    lines = export.written(rewritten(), KEY)
    assert checked(lines).good
    report = checked(lines, older=[older(8), older(20)])
    (first,) = report.findings
    assert "another beginning than in kept.note: after entry 7, before entry 20" in first.message


def test_a_log_that_was_cut_back_and_signed_again() -> None:
    lines = export.written(RECORDS[:12], KEY)
    assert checked(lines).good
    assert "cut back" in checked(lines, older=[older(20)]).findings[0].message
    missing = first_difference([line + b"\n" for line in lines], [line + b"\n" for line in LINES], "before.ndjson")
    assert missing is not None
    assert (missing.kind, missing.sequence) == ("missing", 12)


def test_an_earlier_export_that_this_begins_with() -> None:
    earlier = export.written(RECORDS[:12], KEY)
    assert first_difference([line + b"\n" for line in LINES], [line + b"\n" for line in earlier], "x") is None


def test_findings_are_bounded() -> None:
    report = checked([LINES[0], *([b"x"] * 100)])
    assert len(report.findings) == MOST_SHOWN
    assert report.more > 0
    assert "more" in "\n".join(report.lines("it"))


@settings(max_examples=80, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_can_be_flipped_unseen(place: int, bit: int) -> None:
    whole = bytearray(b"\n".join(LINES) + b"\n")
    at = place % len(whole)
    whole[at] ^= 1 << bit
    line = bytes(whole).split(b"\n")[bytes(whole[:at]).count(b"\n")] if whole[at] != 10 else b""
    report = check(lines_of(io.BytesIO(bytes(whole))), parse_key(KEY.vkey))
    unprotected = _shown(line) in [_shown(each) for each in LINES]
    assert report.good == unprotected, (at, line)


def _shown(line: bytes) -> object:
    """What is said in a line that is protected: all but the cursor and the time of signing."""
    try:
        said = json.loads(line)
        for part, name in (("entry", "cursor"), ("checkpoint", "signTime")):
            if part in said:
                del said[part][name]
    except (ValueError, KeyError, TypeError):
        return line
    return said
