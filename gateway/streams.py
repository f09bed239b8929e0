"""All answers of a gateway that are streams: how many there may be, and how they end when the process does."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from chassis.errors import ApiError, Code
from gateway.sse.port import StreamHandler

_EARLIEST: Final = 0.3
_LATEST: Final = 0.8
"""Shares of the time for stopping, between which streams are told to end: what is over by itself before is not cut, and
clients that come back do not do so all at once."""
_RETRY_AFTER: Final = 1.0


class Stoppable(Protocol):
    """A stream in progress."""

    def stop(self) -> None:
        """Let it end before its end, and tell its client so. Returns at once."""
        ...


class Streams:
    """`handlers` are those who serve the streams of an RPC, by its path, and count them themselves; `most` and `of_tenant`
    are how many of all others there may be; `random` gives [0, 1)."""

    def __init__(
        self, handlers: Mapping[str, StreamHandler], *, most: int, of_tenant: int, random: Callable[[], float]
    ) -> None:
        self.handlers = handlers
        self._most = most
        self._of_tenant = of_tenant
        self._random = random
        self._active: dict[Stoppable, str] = {}
        self._tenants: Counter[str] = Counter()
        self._draining = False
        self._none_left = asyncio.Event()

    def __len__(self) -> int:
        return len(self._active)

    def enter(self, stream: Stoppable, tenant: str) -> None:
        """Raises ApiError when there are as many as there may be: UNAVAILABLE of all, RESOURCE_EXHAUSTED of the tenant; and
        UNAVAILABLE when the gateway stops."""
        if self._draining:
            raise stopping()
        if len(self._active) >= self._most:
            message = "The gateway has as many streams as it takes."
            raise ApiError(Code.UNAVAILABLE, "STREAMS_EXHAUSTED", message, retry_after=_RETRY_AFTER)
        if self._tenants[tenant] >= self._of_tenant:
            message = "The tenant has as many streams as it may have."
            raise ApiError(Code.RESOURCE_EXHAUSTED, "TENANT_STREAMS_EXHAUSTED", message, retry_after=_RETRY_AFTER)
        self._active[stream] = tenant
        self._tenants[tenant] += 1

    def leave(self, stream: Stoppable) -> None:
        """Harmless for one that is not there."""
        tenant = self._active.pop(stream, None)
        if tenant is not None:
            self._tenants[tenant] -= 1
            if not self._tenants[tenant]:
                del self._tenants[tenant]
        if not self._active:
            self._none_left.set()

    async def drain(self, seconds: float) -> None:
        """Take no more and end those there are, spread over `seconds`. Returns when all have ended, after `seconds` at the
        latest."""
        self._draining = True
        loop = asyncio.get_running_loop()
        span = _LATEST - _EARLIEST
        timers = [
            loop.call_later(seconds * (_EARLIEST + span * self._random()), stream.stop) for stream in self._active
        ]
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as ending:
                for handler in self.handlers.values():
                    ending.create_task(handler.drain(seconds * _LATEST))
                if self._active:
                    self._none_left.clear()
                    await self._none_left.wait()
        except TimeoutError:
            return
        finally:
            for timer in timers:
                timer.cancel()


def stopping() -> ApiError:
    return ApiError(Code.UNAVAILABLE, "STOPPING", "The gateway is stopping.", retry_after=_RETRY_AFTER)
