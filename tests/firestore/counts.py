"""What the server was asked for, as production would bill it, and every attempt."""

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Attempt:
    """One call as it arrived. Times are of the server's monotonic clock; `budget` is the seconds until the client's deadline
    (None: it has none). It ends, OK, when its last answer is on its way: clients stop to listen as soon as they have it."""

    rpc: str
    began: float
    budget: float | None
    ended: float | None = None
    outcome: str | None = None
    """A status code's name."""

    def end(self, outcome: str, now: float) -> None:
        """The first end counts."""
        if self.outcome is None:
            self.outcome, self.ended = outcome, now

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Counts:
    """`reads` are documents returned or skipped, one for each missing one of a batch, at least one a query, and one for each
    1000 index entries of a count."""

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    rpcs: Counter[str] = field(default_factory=Counter)
    """Attempts by RPC, refused ones included."""
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=100_000))
    """The last ones."""
    write_times: dict[str, list[int]] = field(default_factory=dict)
    """Document name → commit times, microseconds, of its writes and deletes."""

    def clear(self) -> None:
        self.reads = self.writes = self.deletes = 0
        self.rpcs.clear()
        self.attempts.clear()
        self.write_times.clear()

    def hottest(self) -> tuple[str, int]:
        """The document written most often within any one second, and how often; ("", 0) when nothing was written."""
        most = ("", 0)
        for name, times in self.write_times.items():
            start = 0
            for end, time in enumerate(times):
                while times[start] <= time - 1_000_000:
                    start += 1
                if end - start + 1 > most[1]:
                    most = (name, end - start + 1)
        return most

    def to_json(self) -> dict[str, Any]:
        name, writes = self.hottest()
        return {
            "reads": self.reads,
            "writes": self.writes,
            "deletes": self.deletes,
            "rpcs": dict(self.rpcs),
            "hottest": {"name": name, "writes_in_a_second": writes},
        }
