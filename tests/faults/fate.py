"""What befalls an operation of a part that fails now and then: drawn by chance, from a seed."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TypeVar

_T = TypeVar("_T")


class Befalls(Enum):
    NOTHING = "nothing"
    ERROR = "error"
    """Refused, and not done."""
    LOST = "lost"
    """Done, and answered as if it had not been."""
    HANG = "hang"
    """No answer; not done."""
    DELAY = "delay"
    """Done, later."""


@dataclass(frozen=True, slots=True)
class Chances:
    """Shares of the operations, together at most 1. `longest` is the longest delay, `patience` the time after which a
    hanging operation fails, both in seconds."""

    error: float = 0.0
    lost: float = 0.0
    hang: float = 0.0
    delay: float = 0.0
    longest: float = 0.005
    patience: float = 0.02

    def __post_init__(self) -> None:
        if self.error + self.lost + self.hang + self.delay > 1:
            raise ValueError("the shares are more than all operations")


class Fate:
    """Draws for one part. The same seed and the same order of operations are the same faults; `chances` may be changed
    at any time, and `count` says what has befallen."""

    def __init__(self, seed: int, chances: Chances | None = None) -> None:
        self.chances = chances or Chances()
        self.count: Counter[Befalls] = Counter()
        self._random = Random(seed)

    def draw(self) -> Befalls:
        drawn, befalls = self._random.random(), Befalls.NOTHING
        for each in (Befalls.ERROR, Befalls.LOST, Befalls.HANG, Befalls.DELAY):
            share: float = getattr(self.chances, each.value)
            if drawn < share:
                befalls = each
                break
            drawn -= share
        self.count[befalls] += 1
        return befalls

    async def befall(
        self, do: Callable[[], Awaitable[_T]], away: Callable[[], Exception], late: Callable[[], Exception]
    ) -> _T:
        """`do`, under a fault. `away` and `late` make the errors of a part that refuses, and of one that does not answer."""
        befalls = self.draw()
        if befalls is Befalls.ERROR:
            raise away()
        if befalls is Befalls.HANG:
            await asyncio.sleep(self.chances.patience)
            raise late()
        if befalls is Befalls.DELAY:
            await asyncio.sleep(self._random.uniform(0, self.chances.longest))
        answer = await do()
        if befalls is Befalls.LOST:
            failure = self._random.choice((away, late))
            problem = failure()
            raise problem
        return answer
