"""Whether a tenant's readers had every event once and in order, or were told otherwise: the judge of soak and failure tests.

What is in the log is known from the answers that publishers had and from what any reader was given. So an event that one
reader had and another had not is found, whoever published it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from chassis.api.cursors import Position, parse


@dataclass(frozen=True, slots=True)
class Given:
    """An event, as a reader had it. `position` is just after it."""

    position: Position
    id: str
    type: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A gap that was announced: the stream goes on after `position`."""

    position: Position
    reason: str


@dataclass
class Reading:
    """What one reader had, from its first position on. `wants` says which types it asked for."""

    start: Position
    heard: "Sequence[Given | Skipped]"
    wants: Callable[[str], bool] = field(default=lambda _: True)


@dataclass
class Verdict:
    """All of these are 0 where promises are kept; `gaps` were announced, and are no fault."""

    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    unannounced: int = 0
    """Went back, in another epoch, without a gap."""
    unwanted: int = 0
    """Not what was asked for."""
    contradicted: int = 0
    """Two different events at one position, or one event at two of an epoch: of another tenant, or made up."""
    delivered: int = 0
    gaps: int = 0

    @property
    def faults(self) -> int:
        return self.lost + self.duplicated + self.disordered + self.unannounced + self.unwanted + self.contradicted

    def __iadd__(self, other: "Verdict") -> Self:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class Log:
    """What is known of one tenant's log."""

    def __init__(self) -> None:
        self._types: dict[str, dict[int, str]] = {}
        self._ids: dict[Position, str] = {}
        self._places: dict[tuple[str, str], Position] = {}
        self.contradicted = 0

    def add(self, event: Given) -> None:
        """By a publisher's answer, or a reader's word."""
        at, name = event.position, (event.position.epoch, event.id)
        if self._ids.setdefault(at, event.id) != event.id or self._places.setdefault(name, at) != at:
            self.contradicted += 1
            return
        self._types.setdefault(at.epoch, {})[at.sequence] = event.type

    def __len__(self) -> int:
        return len(self._ids)

    def between(self, after: Position, before: int, wants: Callable[[str], bool]) -> int:
        """How many events that are wanted lie after a position and before a sequence of the same epoch."""
        types = self._types.get(after.epoch, {})
        return sum(1 for at in range(after.sequence + 1, before) if at in types and wants(types[at]))

    @property
    def last(self) -> dict[str, int]:
        """The last sequence known of each epoch."""
        return {epoch: max(types) for epoch, types in self._types.items()}


def judge(log: Log, readings: Iterable[Reading]) -> Verdict:
    """Of all readers of one tenant, each of which is held to the end of the epoch in which it ended."""
    readings = list(readings)
    for reading in readings:
        for item in reading.heard:
            if isinstance(item, Given):
                log.add(item)
    verdict = Verdict(contradicted=log.contradicted)
    last = log.last
    for reading in readings:
        verdict += _judge(log, reading, last)
    return verdict


def _judge(log: Log, reading: Reading, last: dict[str, int]) -> Verdict:
    verdict, at = Verdict(), reading.start
    had: set[Position] = set()
    for item in reading.heard:
        to = item.position
        if isinstance(item, Skipped):
            verdict.gaps += 1
            verdict.disordered += to.epoch == at.epoch and to.sequence < at.sequence
            at = to
            continue
        verdict.delivered += 1
        verdict.unwanted += not reading.wants(item.type)
        if to in had:
            verdict.duplicated += 1
            continue
        had.add(to)
        if to.sequence <= at.sequence:
            if to.epoch == at.epoch:
                verdict.disordered += 1
                continue
            verdict.unannounced += 1
        else:
            # A new epoch may go on where the old one ended: then there is nothing in between in either.
            verdict.lost += log.between(at, to.sequence, reading.wants)
            if to.epoch != at.epoch:
                verdict.lost += log.between(Position(to.epoch, at.sequence), to.sequence, reading.wants)
        at = to
    verdict.lost += log.between(at, last.get(at.epoch, 0) + 1, reading.wants)
    return verdict


def position_of(cursor: str) -> Position:
    """Of a cursor that must be one."""
    position = parse(cursor)
    assert position is not None, cursor
    return position
