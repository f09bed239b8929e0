"""What waits for a reader that is too slow and asked for the newest of each subject only."""

from collections.abc import Iterable

from bas.events.v2.events_pb2 import GAP_REASON_CONFLATED, Gap
from gateway.sse.frames import Frame, gap_text


class Conflation:
    """The newest frame of each subject after `cursor`, in the order of the log, at most `most_bytes` of them: beyond that
    the oldest is skipped, too."""

    __slots__ = ("_bytes", "_most_bytes", "_newest", "cursor", "skipped")

    def __init__(self, cursor: str, most_bytes: int) -> None:
        self.cursor = cursor
        self._most_bytes = most_bytes
        self._newest: dict[str, Frame] = {}
        self._bytes = 0
        self.skipped = 0

    def add(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            if not frame.data:
                continue
            self._drop(frame.subject)
            self._newest[frame.subject] = frame
            self._bytes += len(frame.data)
            while self._bytes > self._most_bytes and len(self._newest) > 1:
                self._drop(next(iter(self._newest)))

    def __len__(self) -> int:
        return len(self._newest)

    def text(self) -> bytes:
        """A gap that says how much was skipped, if anything was, then what is kept. Whoever goes on from the gap's cursor
        gets all that was skipped."""
        kept = b"".join([frame.data for frame in self._newest.values()])
        if not self.skipped:
            return kept
        gap = Gap(
            reason=GAP_REASON_CONFLATED,
            missing_count=self.skipped,
            first_cursor=self.cursor,
            cursor=self.cursor,
        )
        return gap_text(gap) + kept

    def _drop(self, key: str) -> None:
        gone = self._newest.pop(key, None)
        if gone is not None:
            self._bytes -= len(gone.data)
            self.skipped += 1
