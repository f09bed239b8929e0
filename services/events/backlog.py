"""What waits for one subscriber: bounded in number and bytes, and, where asked for, the newest of each subject only."""

from collections import OrderedDict, deque
from dataclasses import dataclass

from chassis.api.cursors import Position
from services.events.frames import Frame


@dataclass(frozen=True, slots=True)
class Conflated:
    """`missing` frames were left out in favour of newer ones; `before` is the position before the next that was kept."""

    missing: int
    before: Position


class Backlog:
    """Frames in the order of the log. One that is larger than all the room goes in when there is nothing else."""

    __slots__ = ("_bytes", "_conflate", "_frames", "_latest", "_missing", "_most", "_most_bytes")

    def __init__(self, most: int, most_bytes: int, *, conflate: bool) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._conflate = conflate
        self._frames: deque[Frame] = deque()
        self._latest: OrderedDict[tuple[str, str], Frame] | None = None
        self._bytes = 0
        self._missing = 0

    def __len__(self) -> int:
        return len(self._frames) if self._latest is None else len(self._latest)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def has_room(self, frame: Frame) -> bool:
        waiting = len(self)
        return not waiting or (waiting < self._most and self._bytes + len(frame.data) <= self._most_bytes)

    def add(self, frame: Frame) -> bool:
        """Whether it went in. A conflating backlog takes everything, and leaves out older ones of the same source and
        subject, then whatever is oldest."""
        if self._latest is None:
            if self.has_room(frame):
                self._frames.append(frame)
                self._bytes += len(frame.data)
                return True
            if not self._conflate:
                return False
            self._latest = OrderedDict()
            waiting, self._frames, self._bytes = self._frames, deque(), 0
            for each in waiting:
                self._supersede(self._latest, each)
        self._supersede(self._latest, frame)
        return True

    def take(self) -> Frame | Conflated | None:
        """The next one. That some are missing is told once, before the next that was kept."""
        if self._latest is None:
            if not self._frames:
                return None
            frame = self._frames.popleft()
        else:
            if self._missing:
                first = next(iter(self._latest.values())).position
                told = Conflated(self._missing, Position(first.epoch, first.sequence - 1))
                self._missing = 0
                return told
            _, frame = self._latest.popitem(last=False)
            if not self._latest:
                self._latest = None
        self._bytes -= len(frame.data)
        return frame

    def clear(self) -> None:
        self._frames.clear()
        self._latest = None
        self._bytes = self._missing = 0

    def _supersede(self, latest: OrderedDict[tuple[str, str], Frame], frame: Frame) -> None:
        key = frame.entry.source, frame.entry.subject
        older = latest.pop(key, None)
        if older is not None:
            self._leave_out(older)
        latest[key] = frame
        self._bytes += len(frame.data)
        while len(latest) > 1 and (len(latest) > self._most or self._bytes > self._most_bytes):
            self._leave_out(latest.popitem(last=False)[1])

    def _leave_out(self, frame: Frame) -> None:
        self._bytes -= len(frame.data)
        self._missing += 1
