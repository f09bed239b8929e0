"""The caller tokens under which the gateway follows tenants' streams: its own, not its clients'."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from chassis.auth.tokens import Grant
from chassis.clock import Clock
from gateway.upstream import Metadata

SUBJECT: Final = "service:gateway"
LIFE: Final = 3600.0
"""Seconds for which a token is good, where so long ones are allowed."""
_SHARE: Final = 0.5
"""The part of its life for which a token is given out."""
_TENANTS: Final = 10_000


class Passes:
    """`issue` signs; `ttl` is in seconds; `new_trace` makes a `traceparent`."""

    def __init__(self, issue: Callable[[Grant], str], clock: Clock, ttl: float, new_trace: Callable[[], str]) -> None:
        self._issue = issue
        self._clock = clock
        self._ttl = ttl
        self._new_trace = new_trace
        self._made: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def __call__(self, tenant: str) -> Metadata:
        """The metadata of a call in the name of a tenant, good for half of `ttl` at least."""
        now = self._clock.monotonic()
        made = self._made.get(tenant)
        if made is None or now >= made[0]:
            grant = Grant(tenant, SUBJECT, ("events:read",), self._ttl)
            made = self._made[tenant] = now + self._ttl * _SHARE, f"Bearer {self._issue(grant)}"
            if len(self._made) > _TENANTS:
                self._made.popitem(last=False)
        self._made.move_to_end(tenant)
        return ("authorization", made[1]), ("traceparent", self._new_trace())
