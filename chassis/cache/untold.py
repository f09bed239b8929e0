"""Which invalidations the cache could not be told, for whoever is to see to them later."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_UNTOLD: Final[ContextVar[list[str] | None]] = ContextVar("untold", default=None)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Names of cache entries whose invalidation fails within the block, in this task and those that it starts."""
    names: list[str] = []
    token = _UNTOLD.set(names)
    try:
        yield names
    finally:
        _UNTOLD.reset(token)


def could_not_tell(*names: str) -> None:
    """The cache did not take note that these are out of date."""
    collected = _UNTOLD.get()
    if collected is not None:
        collected += names
