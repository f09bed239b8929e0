"""What waits for a reader: bounded, in order, and nothing left out without a word."""

from hypothesis import given
from hypothesis import strategies as st

from chassis.api.cursors import Position
from services.events.backlog import Backlog, Conflated
from services.events.frames import Frame
from services.events.port import Entry


def frame(sequence: int, subject: str = "", size: int = 10) -> Frame:
    position = Position("e", sequence)
    return Frame(Entry("acme", position, "", "t", subject, "/s", b""), bytes(size), 0.0)


def test_it_is_full_at_either_limit_and_takes_one_that_is_too_large_alone() -> None:
    by_number = Backlog(2, 1000, conflate=False)
    assert [by_number.add(frame(number)) for number in (1, 2, 3)] == [True, True, False]
    by_size = Backlog(10, 25, conflate=False)
    assert [by_size.add(frame(number)) for number in (1, 2, 3)] == [True, True, False]
    assert Backlog(1, 5, conflate=False).add(frame(1))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30), st.booleans()), max_size=60))
def test_a_conflating_one_keeps_the_newest_of_each_subject_within_its_bounds(
    steps: list[tuple[int, int, bool]],
) -> None:
    backlog = Backlog(4, 60, conflate=True)
    out: list[int] = []
    missing = 0
    for sequence, (subject, size, takes) in enumerate(steps, 1):
        assert backlog.add(frame(sequence, str(subject), size))
        assert len(backlog) <= 4
        assert backlog.size <= 60
        if takes:
            missing += _take(backlog, out)
    while len(backlog):
        missing += _take(backlog, out)
    assert out == sorted(set(out))
    assert len(out) + missing == len(steps)
    newest = {subject: sequence for sequence, (subject, _, _) in enumerate(steps, 1)}
    if steps:
        assert max(newest.values()) in out
    assert backlog.size == 0
    assert backlog.take() is None


def _take(backlog: Backlog, out: list[int]) -> int:
    """Take until a frame is taken, and return how many are said to be missing before it."""
    taken = backlog.take()
    missing = 0
    if isinstance(taken, Conflated):
        missing = taken.missing
        after = backlog.take()
        assert isinstance(after, Frame)
        assert after.position.sequence == taken.before.sequence + 1
        taken = after
    assert isinstance(taken, Frame)
    out.append(taken.position.sequence)
    return missing
