"""What happens to a call before its request is looked at: request id, deadline, authentication, in this order."""

import asyncio
import re
from asyncio import Task, TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from chassis import context
from chassis.auth import tokens
from chassis.auth.verifier import Verifier
from chassis.clock import Clock
from chassis.config import Deadline
from chassis.context import Caller
from chassis.errors import ApiError, deadline_exceeded, permission_denied
from chassis.interceptors.status import REQUEST_ID_KEY
from chassis.policies import Credential, Policy

ServerContext = grpc.aio.ServicerContext[Any, Any]
_sane: Final = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


class Progress:
    """One call on its way through the chain."""

    __slots__ = ("code", "late", "request_id", "task", "timer")

    def __init__(self) -> None:
        self.request_id = ""
        self.code = "OK"
        self.late = False
        self.task: Task[Any] | None = None
        self.timer: TimerHandle | None = None

    def expire(self) -> None:
        """The deadline has passed: stop whoever works on this call."""
        self.late = True
        if self.task is not None:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Gate:
    """What admission needs to know of the process, the same for all methods."""

    verifier: Verifier
    clock: Clock
    deadline: Deadline
    random_bytes: Callable[[int], bytes]


def admission(gate: Gate, path: str, policy: Policy, *, streams: bool) -> Callable[[ServerContext, Progress], None]:
    """The admission of one method: fills in the progress and makes the call the current one. The function that is
    returned raises DEADLINE_EXCEEDED, UNAUTHENTICATED or PERMISSION_DENIED."""
    monotonic, verify, random_bytes = gate.clock.monotonic, gate.verifier.verify, gate.random_bytes
    scope, credential = policy.scope, policy.credential
    longest = policy.max_deadline
    # A stream without a deadline of its policy's lives as long as its caller wants; anything else is bounded.
    default = policy.default_deadline or (None if streams else float(gate.deadline.default))
    least_margin = float(gate.deadline.margin)
    denied = permission_denied(scope)

    def authenticate(authorization: str) -> Caller | None:
        if credential is Credential.NONE:
            return None
        if not authorization:
            if credential is Credential.SESSION_TOKEN:
                return None
            raise tokens.missing()
        caller = verify(authorization)
        if scope and scope not in caller.scopes:
            raise ApiError(denied.code, denied.reason, denied.message, metadata=denied.metadata)
        return caller

    def admit(rpc: ServerContext, progress: Progress) -> None:
        authorization = request_id = ""
        for key, value in rpc.invocation_metadata() or ():
            if key == "authorization":
                authorization = value
            elif key == REQUEST_ID_KEY:
                request_id = value
        if request_id and _sane(request_id):
            progress.request_id = request_id
        else:
            # Only who did not name the call has to be told its name.
            request_id = progress.request_id = random_bytes(16).hex()
            rpc.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        left = rpc.time_remaining()
        if left is None:
            left = default
        if longest is not None and left is not None and left > longest:
            left = longest
        deadline = None
        if left is not None:
            if left <= 0:
                raise deadline_exceeded()
            progress.task = asyncio.current_task()
            progress.timer = asyncio.get_running_loop().call_later(left, progress.expire)
            deadline = monotonic() + left - max(least_margin, left * 0.05)
        context.enter(context.Call(path, request_id, deadline))
        caller = authenticate(authorization)
        if caller is not None:
            context.enter(context.Call(path, request_id, deadline, caller))

    return admit
