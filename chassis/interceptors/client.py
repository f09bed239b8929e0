"""The client chain, composed: metrics → deadline → call. Messages stay bytes; failures come out as `ApiError`."""

from typing import Final, Protocol

from chassis import context
from chassis.clock import Clock
from chassis.config import Deadline
from chassis.errors import ApiError, deadline_exceeded
from chassis.http2.channel import Channel
from chassis.http2.grpc import Failure
from chassis.interceptors.metrics import MethodMetrics
from chassis.interceptors.status import REQUEST_ID_KEY, error_of_failure
from chassis.policies import Policy
from chassis.resilience.deadline import remaining
from chassis.telemetry.metrics import Metrics

CLIENT_ORDER: Final = ("metrics", "deadline", "call")
"""The layers, outermost first."""

Metadata = tuple[tuple[str, str], ...]


class UnaryCall(Protocol):
    """One RPC of another process."""

    async def __call__(self, request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109 - sent along
        """The response's bytes. `timeout` in seconds is shortened to the RPC's maximum and to what is left of the call
        in progress, and is the RPC's default when absent. Raises ApiError; cancelling it cancels the call."""
        ...


def unary(
    channel: Channel, path: str, policy: Policy, *, metrics: Metrics, clock: Clock, deadline: Deadline
) -> UnaryCall:
    """The chain of one method, resolved once."""
    send = channel.unary(path)
    counted = MethodMetrics(metrics, "client", path, "unary")
    started, handled, observe, now = counted.started, counted.handled, counted.observe, clock.monotonic
    default = policy.default_deadline or float(deadline.default)
    longest = policy.max_deadline

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

    async def call(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109
        begun = now()
        started()
        code = "CANCELLED"  # what it is when neither an answer nor a status comes
        try:
            answer = await send(request, allowed(timeout), named(metadata))
        except ApiError as late:
            code = late.code.name
            raise
        except Failure as failure:
            error = error_of_failure(failure)
            code = error.code.name
            raise error from None
        else:
            code = "OK"
            return answer
        finally:
            observe(now() - begun)
            handled(code)

    return call


def named(metadata: Metadata) -> Metadata:
    """`metadata` with the request id of the call in progress, so that one name follows it through all processes."""
    current = context.current()
    if current is None or any(key == REQUEST_ID_KEY for key, _ in metadata):
        return metadata
    return (*metadata, (REQUEST_ID_KEY, current.request_id))
