"""The newest events of a shard in memory."""

from chassis.api.cursors import Position
from services.events.frames import Frame
from services.events.port import Entry
from services.events.ring import Ring


def frame(tenant: str, sequence: int, epoch: str = "e", size: int = 10) -> Frame:
    return Frame(Entry(tenant, Position(epoch, sequence), "", "t", "", "/s", b""), bytes(size), 0.0)


def after(ring: Ring, tenant: str, sequence: int, epoch: str = "e") -> list[int] | None:
    found = ring.after(tenant, Position(epoch, sequence))
    return None if found is None else [each.position.sequence for each in found]


def test_it_gives_what_follows_a_position_and_nothing_where_that_is_not_held() -> None:
    ring = Ring(4, 1000)
    assert after(ring, "a", 0) is None
    for sequence in range(5, 12):
        ring.append(frame("a", sequence))
    assert after(ring, "a", 6) is None
    assert after(ring, "a", 7) == [8, 9, 10, 11]
    assert after(ring, "a", 10) == [11]
    assert after(ring, "a", 11) == []
    assert after(ring, "a", 12) is None
    assert after(ring, "b", 7) is None
    assert after(ring, "a", 10, "other") is None
    assert ring.oldest("a") == Position("e", 8)


def test_an_epoch_may_change_on_the_way() -> None:
    ring = Ring(10, 1000)
    for sequence, epoch in ((1, "e"), (2, "e"), (3, "f"), (4, "f")):
        ring.append(frame("a", sequence, epoch))
    assert after(ring, "a", 1) == [2, 3, 4]
    assert after(ring, "a", 2) == after(ring, "a", 2, "f") == [3, 4]
    assert after(ring, "a", 1, "f") is None
    assert after(ring, "a", 3) is None


def test_the_oldest_leaves_first_whosever_it_is() -> None:
    ring = Ring(100, 60)
    for sequence in range(1, 4):
        ring.append(frame("a", sequence))
        ring.append(frame("b", sequence))
    ring.append(frame("b", 4, size=30))
    assert ring.size == (4, 60)
    assert after(ring, "a", 2) == [3]
    assert after(ring, "b", 1) == [2, 3, 4]
    ring.forget("b")
    assert after(ring, "b", 3) is None
    for sequence in range(7, 10):
        ring.append(frame("b", sequence))
    assert after(ring, "b", 6) == [7, 8, 9]
    assert ring.size[1] <= 60
    ring.clear()
    assert ring.size == (0, 0)
