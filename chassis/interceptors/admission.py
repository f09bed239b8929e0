"""What happens to a call before its request is looked at: request id, deadline, authentication, rate limit, in this
order."""

import asyncio
import re
from asyncio import Task, TimerHandle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from chassis import context
from chassis.auth import tokens
from chassis.auth.refusals import Refusals, Refused
from chassis.auth.verifier import Verifier
from chassis.clock import Clock
from chassis.config import Deadline
from chassis.context import Caller
from chassis.errors import deadline_exceeded, permission_denied
from chassis.interceptors.status import REQUEST_ID_KEY
from chassis.peers import SERVICE
from chassis.policies import Credential, Policy
from chassis.resilience.limits.limiter import Limiter
from chassis.resilience.retry import ATTEMPT_KEY
from chassis.resilience.shedding import Shedder

ServerContext = grpc.aio.ServicerContext[Any, Any]
_sane: Final = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_version: Final = re.compile(r"\.(v[0-9]+)\.[A-Za-z]+/", re.ASCII).search


class Progress:
    """One call on its way through the chain."""

    __slots__ = ("code", "late", "request_id", "task", "timer")

    def __init__(self) -> None:
        self.request_id = ""
        self.code = "OK"
        self.late = False
        self.task: Task[Any] | None = None
        self.timer: TimerHandle | None = None

    def expire_after(self, seconds: float) -> None:
        """Stop whoever works on this call, which is the task that asks, when the deadline passes."""
        self.task = asyncio.current_task()
        self.timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def check(self) -> None:
        """Raise CancelledError if the deadline has passed: a handler that swallowed it answers too late all the same."""
        if self.late:
            raise asyncio.CancelledError

    def _expire(self) -> None:
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
    log_calls: bool = False
    """Whether every call is a debug line, not only the slow and the broken ones."""
    limiter: Limiter | None = None
    """None where tenants have no limits."""
    shedder: Shedder | None = None
    """None where nothing is refused under overload."""
    refusals: Refusals | None = None
    """None where nobody counts who was refused."""


Admit = Callable[[ServerContext, Progress], "Awaitable[None] | None"]


def admission(gate: Gate, path: str, policy: Policy, *, streams: bool) -> Admit:
    """The admission of one method: fills in the progress and makes the call the current one. The function that is
    returned raises DEADLINE_EXCEEDED, UNAUTHENTICATED, PERMISSION_DENIED or RATE_LIMITED; what it may return is to be
    awaited, and raises the last of these."""
    monotonic, random_bytes = gate.clock.monotonic, gate.random_bytes
    authenticate = _authentication(gate.verifier, policy)
    allowed = _allowance(policy.stretched(gate.deadline.stretch), None if streams else float(gate.deadline.default))
    least_margin = float(gate.deadline.margin)
    named = _version(path)
    # What needs no scope (health, reflection) is no request of a tenant's.
    limit = gate.limiter.of(named[1] if named else "") if gate.limiter is not None and policy.scope else None

    def admit(rpc: ServerContext, progress: Progress) -> Awaitable[None] | None:
        authorization: str | bytes = ""
        request_id: str | bytes = ""
        repeated = False
        for key, value in rpc.invocation_metadata() or ():
            if key == "authorization":
                authorization = value
            elif key == REQUEST_ID_KEY:
                request_id = value
            elif key == ATTEMPT_KEY:
                repeated = True
        if isinstance(request_id, str) and _sane(request_id):
            progress.request_id = request_id
        else:
            # An error tells it. A success does not: on each call it would be a trailer that no compression helps.
            request_id = progress.request_id = random_bytes(16).hex()
        left = allowed(rpc.time_remaining())
        now = monotonic()
        deadline = None
        if left is not None:
            if left <= 0:
                raise deadline_exceeded()
            progress.expire_after(left)
            deadline = now + left - max(least_margin, left * 0.05)  # margin(), without the call
        caller = authenticate(authorization)
        context.enter(context.Call(path, request_id, deadline, caller, repeated))
        # A call of one service to another follows from one that has been counted, or delivers what is committed.
        if limit is None or caller is None or caller.subject.startswith(SERVICE):
            return None
        return limit(caller.tenant, now)

    return admit


def identify(rpc: ServerContext, progress: Progress) -> None:
    """The request id alone, for a call that goes no further."""
    for key, value in rpc.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _sane(value):
            progress.request_id = value


def _allowance(policy: Policy, fallback: float | None) -> Callable[[float | None], float | None]:
    """Seconds that the caller asked for → seconds that it gets: its own, at most the policy's, or the default."""
    default, longest = policy.default_deadline or fallback, policy.max_deadline

    def allowed(asked: float | None) -> float | None:
        left = default if asked is None else asked
        return longest if longest is not None and left is not None and left > longest else left

    return allowed


def _authentication(verifier: Verifier, policy: Policy) -> Callable[[str | bytes], Caller | None]:
    """`authorization` → the caller, or None where none is needed."""
    verify, scope = verifier.verify, policy.scope
    needed, optional = policy.credential is Credential.TOKEN, policy.credential is Credential.SESSION_TOKEN

    def authenticate(authorization: str | bytes) -> Caller | None:
        if not authorization:
            if needed:
                raise tokens.missing()
            return None
        if not (needed or optional):
            return None
        if not isinstance(authorization, str):
            raise tokens.invalid()
        caller = verify(authorization)
        if scope and scope not in caller.scopes:
            raise Refused(permission_denied(scope), "SCOPE_MISSING", caller)
        return caller

    return authenticate
