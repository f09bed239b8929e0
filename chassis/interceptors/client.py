"""The client chain, composed: metrics → deadline → retry → breaker → call. Messages stay bytes; failures come out as
`ApiError`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from chassis import context
from chassis.clock import Clock
from chassis.config import Deadline
from chassis.errors import ApiError, Code, deadline_exceeded
from chassis.http2.channel import Channel, Send
from chassis.http2.grpc import Failure
from chassis.interceptors.metrics import MethodMetrics
from chassis.interceptors.status import DETAILS_KEY, REQUEST_ID_KEY, error_of_failure
from chassis.policies import Policy
from chassis.resilience.breaker import AlwaysAdmit, Guard
from chassis.resilience.deadline import remaining
from chassis.resilience.lag import never_late
from chassis.resilience.repeatable import repeatable
from chassis.resilience.retry import ATTEMPT_KEY, Retries
from chassis.telemetry.metrics import Metrics

CLIENT_ORDER: Final = ("metrics", "deadline", "retry", "breaker", "call")
"""The layers, outermost first."""
_FAIR: Final = 0.5
"""Share of an RPC's default deadline that its service must have had before a missed deadline counts against it: whoever
allows less finds fault with the service where there is none."""

Metadata = tuple[tuple[str, str], ...]
_Attempt = Callable[[bytes, float, Metadata], Awaitable[bytes]]


class UnaryCall(Protocol):
    """One RPC of another process."""

    async def __call__(self, request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - sent along
        """The response's bytes. `timeout` in seconds is shortened to the RPC's maximum and to what is left of the call
        in progress, and is the RPC's default when absent. Raises ApiError; cancelling it cancels the call."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """What all methods of one channel share. `late(moment)` says whether this process's event loop was held up after
    that time of the clock."""

    retries: Retries
    guard: Guard = field(default_factory=AlwaysAdmit)
    late: Callable[[float], bool] = never_late


def unary(
    channel: Channel, path: str, policy: Policy, *, metrics: Metrics, clock: Clock, deadline: Deadline, link: Link
) -> UnaryCall:
    """The chain of one method, resolved once."""
    counted = MethodMetrics(metrics, "client", path, "unary")
    started, handled, observe, now = counted.started, counted.handled, counted.observe, clock.monotonic
    policy = policy.stretched(deadline.stretch)
    default = policy.default_deadline or float(deadline.default)
    allowed = _allowance(clock, default, policy.max_deadline)
    attempt = _attempts(channel.unary(path), link, clock, default * _FAIR)
    called, repeat = link.retries.called, _repetition(attempt, policy, link, clock)

    async def call(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109
        begun = now()
        started()
        code = "CANCELLED"  # what it is when neither an answer nor a status comes
        try:
            seconds, metadata = allowed(timeout), named(metadata)
            called(begun)
            try:
                answer = await attempt(request, seconds, metadata)
            except ApiError as failure:
                answer = await repeat(failure, request, metadata, begun + seconds)
        except ApiError as failure:
            code = failure.code.name
            raise
        else:
            code = "OK"
            return answer
        finally:
            observe(now() - begun)
            handled(code)

    return call


def _allowance(clock: Clock, default: float, longest: float | None) -> Callable[[float | None], float]:
    """Seconds that were asked for → those that the call gets. Raises DEADLINE_EXCEEDED when there are none left."""

    def allowed(timeout: float | None) -> float:
        seconds = default if timeout is None else timeout
        if longest is not None and seconds > longest:
            seconds = longest
        left = remaining(clock)  # the margin was taken off when the call came in
        if left is not None and left < seconds:
            seconds = left
        if seconds <= 0:
            raise deadline_exceeded()
        return seconds

    return allowed


def _repetition(
    attempt: _Attempt, policy: Policy, link: Link, clock: Clock
) -> Callable[[ApiError, bytes, Metadata, float], Awaitable[bytes]]:
    """(first failure, request, metadata, time until when) → the response of another attempt, or the failure again."""
    worthwhile, again, now = link.retries.worthwhile, link.retries.again, clock.monotonic

    async def repeat(failure: ApiError, request: bytes, metadata: Metadata, until: float) -> bytes:
        current = context.current()
        repeated = current is not None and current.repeated
        if repeated or not worthwhile(failure) or not repeatable(policy, request):
            raise failure

        def once_more(number: int) -> Awaitable[bytes]:
            return attempt(request, max(until - now(), 0.0), (*metadata, (ATTEMPT_KEY, str(number))))

        return await again(failure, once_more, until)

    return repeat


def _attempts(send: Send, link: Link, clock: Clock, fair: float) -> _Attempt:
    """Single attempts: (request, seconds, metadata) → response. `fair` seconds are enough to find a service late."""
    admit, late, now = link.guard.admit, link.late, clock.monotonic

    def verdict(failure: Failure, seconds: float) -> bool | None:
        # With our details on it, it is an answer: a service that is there, and speaks of what it stands on.
        if DETAILS_KEY in failure.trailers:
            return None
        if failure.status == Code.UNAVAILABLE.grpc_number:
            return False
        timely = failure.status != Code.DEADLINE_EXCEEDED.grpc_number or seconds < fair or late(now() - seconds)
        return None if timely else False

    async def attempt(request: bytes, seconds: float, metadata: Metadata) -> bytes:
        settle = admit()
        answered: bool | None = None
        try:
            answer = await send(request, seconds, metadata)
            answered = True
        except Failure as failure:
            answered = verdict(failure, seconds)
            raise error_of_failure(failure) from None
        finally:
            settle(answered)
        return answer

    return attempt


def named(metadata: Metadata) -> Metadata:
    """`metadata` with the request id of the call in progress, so that one name follows it through all processes."""
    current = context.current()
    if current is None or any(key == REQUEST_ID_KEY for key, _ in metadata):
        return metadata
    return (*metadata, (REQUEST_ID_KEY, current.request_id))
