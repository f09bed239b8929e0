"""`docs/api.md` says what the code does: its table of codes, its numbers, its examples of filters."""

import re
from pathlib import Path

from bas.devices.v2.devices_pb2 import DeviceStatus
from chassis.api import filter_spec
from chassis.api.filter_spec import FilterSpec
from chassis.api.filtering import MAX_CONDITIONS, MAX_LENGTH
from chassis.api.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from chassis.api.validation import MAX_VIOLATIONS
from chassis.errors import Code
from chassis.store.requests import KEPT

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
SPEC = FilterSpec(
    {
        "status": filter_spec.enum("status", DeviceStatus.DESCRIPTOR),
        "type": filter_spec.text("type"),
        "labels": filter_spec.labels("terms"),
        "create_time": filter_spec.timestamp("create_time"),
    }
)


def test_the_table_of_codes_is_the_error_table() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", PAGE, re.MULTILINE)
    assert sorted((name, int(status)) for name, status in rows) == sorted((c.name, c.http_status) for c in Code)


def test_the_examples_of_filters_are_accepted() -> None:
    section = PAGE[PAGE.index("## Lists: filters") : PAGE.index("## Lists: order")]
    examples = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(examples) == 7
    for example in examples:
        assert SPEC.compile(example).filters


def test_the_numbers_are_the_codes() -> None:
    words = " ".join(PAGE.split())
    for sentence in (
        f"nothing means {DEFAULT_PAGE_SIZE}, more than {MAX_PAGE_SIZE} means {MAX_PAGE_SIZE}",
        f"at most {MAX_CONDITIONS}, at most {MAX_LENGTH} characters",
        f"Up to {MAX_VIOLATIONS} wrong fields",
        f"for {KEPT.total_seconds() / 3600:.0f} hours",
    ):
        assert sentence in words
