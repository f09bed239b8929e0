"""Awaiting several cache operations that share one round trip."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(operations: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; all have ended when this returns or raises the first one's error."""
    waiting = list(operations)
    if len(waiting) == 1:
        return [await waiting[0]]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
