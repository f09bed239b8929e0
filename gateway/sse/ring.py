"""The newest frames of one stream, for those who were away for a moment."""

from collections import deque
from typing import Final

from chassis.api.cursors import Position
from gateway.sse.frames import Frame

MOST: Final = 1024
MOST_BYTES: Final = 256 * 1024
_OVERHEAD: Final = 200
"""Bytes that a frame costs beside its text, about."""


class Ring:
    """Frames in the order of their positions, all of one epoch: everything of the stream after `floor`. What is too much
    leaves at the old end, and the floor rises."""

    __slots__ = ("_bytes", "_frames", "_known", "_most", "_most_bytes", "floor", "floor_cursor")

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._frames: deque[Frame] = deque()
        self._known: set[str] = set()
        self._bytes = 0
        self.floor: Position | None = None
        self.floor_cursor = ""

    def restart(self, frame: Frame) -> None:
        """Forget all; what follows is after `frame`."""
        self._frames.clear()
        self._known.clear()
        self._bytes = 0
        self.floor, self.floor_cursor = frame.position, frame.cursor

    def append(self, frame: Frame) -> None:
        """`frame` must be after the last one, and of its epoch."""
        self._frames.append(frame)
        self._known.add(frame.cursor)
        self._bytes += len(frame.data) + _OVERHEAD
        while len(self._frames) > self._most or self._bytes > self._most_bytes:
            gone = self._frames.popleft()
            self._known.discard(gone.cursor)
            self._bytes -= len(gone.data) + _OVERHEAD
            self.floor, self.floor_cursor = gone.position, gone.cursor

    def knows(self, cursor: str) -> bool:
        """Whether exactly this cursor was given out here: nobody has to be asked whether it is genuine."""
        return cursor in self._known or (cursor != "" and cursor == self.floor_cursor)

    def covers(self, position: Position) -> bool:
        """Whether all that follows `position` can be had here, as far as the stream has come."""
        floor = self.floor
        return floor is not None and position.epoch == floor.epoch and position.sequence >= floor.sequence

    def after(self, position: Position, most_bytes: int) -> tuple[list[Frame], bool]:
        """The frames after a position that is covered, and whether these are all; fewer than all where they would be more
        than `most_bytes`."""
        found: list[Frame] = []
        for frame in reversed(self._frames):
            if frame.position.sequence <= position.sequence:
                break
            found.append(frame)
        found.reverse()
        size = 0
        for count, frame in enumerate(found):
            size += len(frame.data)
            if size > most_bytes and count:
                return found[:count], False
        return found, True

    def __len__(self) -> int:
        return len(self._frames)
