"""The outermost layer: whatever comes out of a handler becomes a status, and what should be seen becomes a log line."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

import structlog

from chassis.errors import ApiError, Code, deadline_exceeded, internal
from chassis.interceptors.admission import Progress, ServerContext
from chassis.interceptors.status import REQUEST_ID_KEY, STATUS_CODES, Trailers, message_of, trailers_of

_OURS: Final = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
"""Codes that say that we, not the caller or the weather, are at fault: logged with their stack."""
_SLOW: Final = 1.0
_QUIET: Final = 1.0


class Recovery:
    """Recovery and error mapping of one method. `default_deadline` (seconds) is what the method is expected to take at
    most: a unary call above it is reported as slow. `verbose` reports every call."""

    __slots__ = ("_clock", "_log", "_quiet_until", "_refusals", "_unsaid", "slow_after", "verbose")

    def __init__(
        self, path: str, default_deadline: float | None, clock: Callable[[], float], *, verbose: bool = False
    ) -> None:
        self._clock = clock
        self._quiet_until = -math.inf
        self._unsaid = 0
        self._refusals: dict[float | None, Trailers] = {}
        self._log = structlog.get_logger("bas.rpc").bind(method=path)
        self.slow_after = math.inf if default_deadline is None else min(default_deadline, _SLOW)
        self.verbose = verbose

    def fail(self, rpc: ServerContext, progress: Progress, problem: BaseException) -> None:
        """Put the status of `problem` on the call. Raises `problem` where the call is over already: its caller has gone,
        the process is stopping."""
        error = self._error_of(rpc, progress, problem)
        if error.code in _OURS:
            self._log.error("call failed", exc_info=problem, request_id=progress.request_id)
        try:
            message, trailers = message_of(error), trailers_of(error, progress.request_id)
        except ValueError as unencodable:  # an unpaired surrogate in a message
            self._log.error("error not encodable", exc_info=unencodable, request_id=progress.request_id)
            error = internal()
            message, trailers = message_of(error), trailers_of(error, progress.request_id)
        progress.code = error.code.name
        rpc.set_code(STATUS_CODES[error.code])
        rpc.set_details(message)
        rpc.set_trailing_metadata(trailers)

    def refuse(self, rpc: ServerContext, progress: Progress, error: ApiError) -> None:
        """The same for an error of which there are few kinds, told apart by `retry_after`, and many: its details are made
        once for each, and name no request."""
        trailers = self._refusals.get(error.retry_after)
        if trailers is None:
            trailers = self._refusals[error.retry_after] = trailers_of(error, "")
        if progress.request_id:
            trailers += ((REQUEST_ID_KEY, progress.request_id),)
        progress.code = error.code.name
        rpc.set_code(STATUS_CODES[error.code])
        rpc.set_details(error.message)
        rpc.set_trailing_metadata(trailers)

    def report(self, progress: Progress, elapsed: float) -> None:
        """One line for a call that took long, at most one a second: in an outage all of them do. Or a debug line for any
        call, where all are logged."""
        what = {"code": progress.code, "seconds": round(elapsed, 6), "request_id": progress.request_id}
        if self.verbose:
            self._log.debug("call", **what)
        if elapsed < self.slow_after:
            return
        now = self._clock()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        self._log.info("slow call", **what, unsaid=self._unsaid)
        self._quiet_until, self._unsaid = now + _QUIET, 0

    def _error_of(self, rpc: ServerContext, progress: Progress, problem: BaseException) -> ApiError:
        if isinstance(problem, asyncio.CancelledError):
            return self._cancelled(rpc, progress, problem)
        if isinstance(problem, Exception):
            if progress.late and progress.task is not None:
                progress.task.uncancel()  # the deadline's own cancellation came out as this error
                return deadline_exceeded()
            return problem if isinstance(problem, ApiError) else internal()
        progress.code = Code.INTERNAL.name
        raise problem  # KeyboardInterrupt, SystemExit, GeneratorExit: not ours to keep

    @staticmethod
    def _cancelled(rpc: ServerContext, progress: Progress, problem: BaseException) -> ApiError:
        task = asyncio.current_task()
        pending = task.cancelling() if task is not None else 0
        if progress.late and task is not None:
            pending = task.uncancel()
        if pending:
            # The caller cancelled, or its deadline passed and it no longer listens, or the server is stopping.
            progress.code = Code.DEADLINE_EXCEEDED.name if rpc.time_remaining() == 0 else Code.CANCELLED.name
            raise problem
        # Nobody asked for a cancellation: something inside the handler let one out. Left alone, gRPC would send no
        # status at all and the caller would wait for its deadline.
        return deadline_exceeded() if progress.late else internal()
