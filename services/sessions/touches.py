"""Writing that sessions are used, beside the calls that use them: no authentication waits for it."""

import asyncio
from contextvars import Context
from typing import Final

from chassis.errors import ApiError
from chassis.store.port import PreconditionFailed
from chassis.telemetry.metrics import Metrics
from services.sessions.store import SessionStore

AT_ONCE: Final = 256
"""Sessions written at once; a further one is left to its next use."""


class Touches:
    """One write a session at a time. Owns its tasks: `close` ends them."""

    def __init__(self, store: SessionStore, metrics: Metrics) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        counter = metrics.counter("bas_sessions_touches", "Writes of a session's use, by outcome.", ("outcome",))
        self._written, self._spared, self._failed = (
            counter.labels(outcome) for outcome in ("written", "spared", "failed")
        )

    def begin(self, tenant: str, session_id: str) -> None:
        """Write it soon, unless that is under way."""
        if session_id in self._tasks:
            return
        if len(self._tasks) >= AT_ONCE:
            self._spared.inc()
            return
        # In a context of its own: the deadline of the call that began it is not its deadline.
        task = asyncio.get_running_loop().create_task(
            self._touch(tenant, session_id), name=f"touch {session_id}", context=Context()
        )
        self._tasks[session_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(session_id, None))

    async def settled(self) -> None:
        """Once all that was begun has ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self.settled()

    async def _touch(self, tenant: str, session_id: str) -> None:
        try:
            written = await self._store.touch(tenant, session_id)
        except PreconditionFailed:
            self._spared.inc()  # another replica, or another change, was faster
        except ApiError:
            self._failed.inc()  # the session's next use tries again
        else:
            (self._written if written else self._spared).inc()
