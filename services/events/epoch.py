"""Epochs of a shard: which positions of earlier ones are still good, and what this process knows that the log must have.

An epoch is one run of one server over one memory: `scripts.py` gives the shard a new one when another run writes to it.
So no two events of one epoch ever have the same sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_CUT = -1


@dataclass(frozen=True, slots=True)
class Lineage:
    """The present epoch, how far it has come, and where earlier ones ended that lead to it without a known loss."""

    epoch: str
    reached: int
    earlier: Mapping[str, int]

    def holds(self, epoch: str, number: int) -> bool:
        """Whether what was the number `number` of that epoch is in this log, with all before it."""
        return number <= (self.reached if epoch == self.epoch else self.earlier.get(epoch, _CUT))


def parse_earlier(written: bytes | None) -> dict[str, int]:
    """Reads `name:end,name:end,…`. Those whose positions are no longer good (-1) are left out."""
    found = {}
    for pair in (written or b"").decode().split(","):
        name, _, end = pair.partition(":")
        if name and int(end) > _CUT:
            found[name] = int(end)
    return found


class Witness:
    """The furthest that this process has seen a shard come. The server is told with every request: it knows then when
    it has come back with less."""

    def __init__(self) -> None:
        self.epoch = ""
        self.number = 0

    def learn(self, epoch: str, number: int) -> None:
        if epoch == self.epoch:
            self.number = max(self.number, number)
        else:
            self.epoch, self.number = epoch, number
