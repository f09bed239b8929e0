"""The newest frames of one shard, in memory, for subscribers that come or fall behind: bounded for all tenants together,
the oldest leaving first, whosever it is."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from chassis.api.cursors import Position
from services.events.frames import Frame


class Ring:
    """At most `most` frames and `most_bytes` bytes. What is held of one tenant has no hole."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._order: deque[tuple[deque[Frame], Frame]] = deque()
        self._held: dict[str, deque[Frame]] = {}
        self._bytes = 0

    @property
    def size(self) -> tuple[int, int]:
        """Frames and bytes held."""
        return len(self._order), self._bytes

    def append(self, frame: Frame) -> None:
        """Add the frame that follows the tenant's last one; after a hole, `forget` comes first."""
        held = self._held.setdefault(frame.entry.tenant, deque())
        held.append(frame)
        self._order.append((held, frame))
        self._bytes += len(frame.data)
        while len(self._order) > self._most or self._bytes > self._most_bytes:
            of, oldest = self._order.popleft()
            self._bytes -= len(oldest.data)
            if of and of[0] is oldest:
                of.popleft()

    def forget(self, tenant: str) -> None:
        """What is held of the tenant is no longer what the log continues."""
        held = self._held.pop(tenant, None)
        if held is not None:
            held.clear()

    def clear(self) -> None:
        self._order.clear()
        self._held.clear()
        self._bytes = 0

    def oldest(self, tenant: str) -> Position | None:
        """The position of the tenant's oldest frame."""
        held = self._held.get(tenant)
        return held[0].position if held else None

    def after(self, tenant: str, position: Position) -> Iterator[Frame] | None:
        """The tenant's frames after a position, to be used up before the next `append`; None when the one that follows
        the position is not held."""
        held = self._held.get(tenant)
        if not held:
            return None
        skipped = position.sequence - held[0].position.sequence + 1
        if not 0 <= skipped <= len(held):
            return None
        # An epoch may change within: the position is of the log if it is that of the event before it, or of the next.
        beside = (held[index].position.epoch for index in (skipped - 1, skipped) if 0 <= index < len(held))
        return islice(held, skipped, None) if position.epoch in beside else None
