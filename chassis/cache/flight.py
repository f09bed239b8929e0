"""Single flight: concurrent misses of one key share one load."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from chassis.errors import ApiError, Code, unavailable

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("task", "token", "waiting")

    def __init__(self, token: bytes, task: "asyncio.Task[T]") -> None:
        self.token = token
        self.task = task
        self.waiting = 0


class SingleFlight(Generic[T]):
    """Loads in progress by key, each an owned task.

    A load may be joined only by a reader that was handed the same token: an equal token proves that no invalidation,
    by whichever process, came between the load's start and the reader's. Joining by key alone would hand a load that
    began before a write to a reader that began after it was acknowledged.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def run(self, key: str, token: bytes, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Join the load of `key` under `token` or start it. A cancelled reader leaves; the last one to leave ends it."""
        flight = self._flights.get(key)
        joined = flight is not None and flight.token == token
        if flight is None or flight.token != token:
            flight = self._start(key, token, work)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except ApiError as problem:
            # The load ran in its first reader's call: that call's deadline says nothing about ours.
            if not joined or problem.code is not Code.DEADLINE_EXCEEDED:
                raise
        except asyncio.CancelledError:
            if flight.task.cancelled() and not _being_cancelled():
                raise unavailable("SHUTTING_DOWN", "The process is stopping.") from None
            raise
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
        return await work()

    def detach(self, key: str) -> None:
        """Whoever reads from now on does not join what is under way."""
        self._flights.pop(key, None)

    async def close(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: str, token: bytes, work: Callable[[], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = _Flight(token, asyncio.create_task(work(), name=f"load {key}"))
        self._flights[key] = flight

        def landed(task: "asyncio.Task[T]") -> None:
            self._forget(key, flight)
            if not task.cancelled():
                task.exception()  # readers that left need not hear of it

        flight.task.add_done_callback(landed)
        return flight

    def _forget(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
