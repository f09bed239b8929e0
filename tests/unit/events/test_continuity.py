"""The judge of continuity: what it calls a fault, and what not."""

import pytest

from chassis.api.cursors import Position
from tests.support.continuity import Given, Log, Reading, Skipped, Verdict, judge


def given(number: int, epoch: str = "a", name: str = "") -> Given:
    return Given(Position(epoch, number), name or f"{epoch}{number}", "odd" if number % 2 else "even")


def verdict(*heard: Given | Skipped, wants: str = "", start: Position = Position("a", 0)) -> Verdict:  # noqa: B008 - a value
    """Of one reader of a log with six events."""
    log = Log()
    for number in range(1, 7):
        log.add(given(number))
    return judge(log, [Reading(start, heard, lambda kind: wants in ("", kind))])


ALL = [given(number) for number in range(1, 7)]


def test_everything_once_and_in_order() -> None:
    assert verdict(*ALL) == Verdict(delivered=6)
    assert verdict(*ALL[2:], start=Position("a", 2)) == Verdict(delivered=4)
    assert verdict(*ALL[1::2], wants="even") == Verdict(delivered=3)


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (ALL[1:], Verdict(delivered=5, lost=1)),
        ([*ALL[:2], *ALL[3:]], Verdict(delivered=5, lost=1)),
        (ALL[:-1], Verdict(delivered=5, lost=1)),
        ([], Verdict(lost=6)),
        ([*ALL[:3], *ALL[2:]], Verdict(delivered=7, duplicated=1)),
        ([ALL[0], ALL[2], ALL[1], *ALL[3:]], Verdict(delivered=6, lost=1, disordered=1)),
        ([*ALL, given(2, "b")], Verdict(delivered=7, unannounced=1)),
        ([*ALL, given(8, "b"), given(9, "b")], Verdict(delivered=8)),  # nobody knows of an event between
        ([*ALL[:-1], given(7, "b")], Verdict(delivered=6, lost=1)),
        ([*ALL[:-1], given(6, "a", "other")], Verdict(delivered=6, contradicted=1)),
        ([*ALL, Skipped(Position("a", 3), "")], Verdict(delivered=6, gaps=1, disordered=1, lost=3)),
    ],
)
def test_faults(heard: list[Given | Skipped], expected: Verdict) -> None:
    assert verdict(*heard) == expected


def test_what_was_not_asked_for() -> None:
    assert verdict(*ALL, wants="even").unwanted == 3


def test_what_was_announced_is_no_fault() -> None:
    assert verdict(*ALL[:2], Skipped(Position("a", 4), "CONFLATED"), *ALL[4:]) == Verdict(delivered=4, gaps=1)
    assert verdict(*ALL[:2], Skipped(Position("b", 0), "EPOCH_CHANGED"), given(1, "b")) == Verdict(delivered=3, gaps=1)
    # An announcement excuses nothing after it.
    assert verdict(*ALL[:2], Skipped(Position("a", 3), "CONFLATED"), *ALL[4:]).lost == 1


def test_one_reader_is_a_witness_against_another() -> None:
    log = Log()
    full = Reading(Position("a", 0), ALL)
    found = judge(log, [full, Reading(Position("a", 0), ALL[:4])])
    assert (found.lost, len(log)) == (2, 6)
