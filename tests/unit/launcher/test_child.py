import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from launcher.child import Child, end_with_supervisor

BOUND = 5.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test may have closed it
            os.close(end)


def test_nothing_happens_while_the_supervisor_holds_its_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    terminated, abandoned = threading.Event(), threading.Event()
    watch = end_with_supervisor(reader, terminated.set, abandoned.set, grace=0.01)
    os.write(writer, b"not the end")
    assert not terminated.wait(0.05)
    os.close(writer)
    assert terminated.wait(BOUND)
    assert abandoned.wait(BOUND)
    watch.join(BOUND)


def test_a_drain_that_hangs_is_cut_short_only_after_its_grace(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    order: list[str] = []
    os.close(writer)
    watch = end_with_supervisor(reader, lambda: order.append("drain"), lambda: order.append("end"), grace=0.05)
    watch.join(BOUND)
    assert order == ["drain", "end"]


async def test_a_child_that_was_never_started_stops_at_once() -> None:
    child = Child("devices", {})
    await child.stop(grace=1.0)
    assert child.pid is None
    with pytest.raises(RuntimeError):
        await child.wait()
