"""Recorded reads and writes of one key, and the check that a cache's promises held.

Versions are 1, 2, … in the order of the commits; version 0 is there from the start.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Read:
    began: float
    ended: float
    version: int


@dataclass(slots=True)
class Write:
    version: int
    committed: float
    acknowledged: float | None = None
    """When the promise starts to hold for it; None: never within this history."""


@dataclass(slots=True)
class History:
    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def violations(self, *, monotonic: bool = True) -> list[str]:
        """What was broken. `monotonic` False leaves steps back out: they may happen between a commit and an
        invalidation that could not be delivered."""
        broken = []
        commits = {write.version: write.committed for write in self.writes} | {0: float("-inf")}
        acknowledged = [write for write in self.writes if write.acknowledged is not None]
        for read in self.reads:
            if commits.get(read.version, float("inf")) > read.ended:
                broken.append(f"from the future: {read}")
            floor = max((w.version for w in acknowledged if (w.acknowledged or 0.0) < read.began), default=0)
            if read.version < floor:
                broken.append(f"stale: {read}, {floor} was acknowledged before it began")
        return broken + (self._steps_back() if monotonic else [])

    def _steps_back(self) -> list[str]:
        broken = []
        ended = iter(sorted(self.reads, key=lambda read: read.ended))
        earlier = next(ended, None)
        highest = 0
        for read in sorted(self.reads, key=lambda read: read.began):
            while earlier is not None and earlier.ended < read.began:
                highest = max(highest, earlier.version)
                earlier = next(ended, None)
            if read.version < highest:
                broken.append(f"went backwards: {read}, {highest} was answered before it began")
        return broken
