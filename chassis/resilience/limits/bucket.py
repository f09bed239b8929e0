"""What one process holds of one tenant's bucket: tokens granted ahead, and what it gave out itself while nobody granted."""

import asyncio
import math
from collections import deque
from typing import Final

from chassis.resilience.limits.policies import Policy

AHEAD: Final = 0.1
"""Seconds whose requests are granted ahead, at most."""
_BURST_SHARE: Final = 4
_FIRST: Final = 4
_NO_MARK: Final = -1
_SMALL: Final = 4
_NOTHING: Final = 1e-6
"""Seconds: less than this is a rounding error, and who waited as long as was asked passes."""

Waiter = asyncio.Future[None]


class Bucket:
    """Times are monotonic seconds. There are many of these, so each holds little: no logic that needs a key or a clock.

    `tokens` are good until `until`; when they have fallen to `mark`, it is time to ask for more. Nothing more is to be had
    before `closed`. `spare` ran out unused and are to be given back. `full_at` is when the bucket would be full if this
    process and its like had it for themselves; `alone` is how much was taken from it without anybody being told.
    """

    __slots__ = (
        "alone", "asking", "closed", "full_at", "granted", "mark", "policy", "size", "spare", "tokens", "until", "waiting",
    )  # fmt: skip

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.tokens = 0
        self.mark = _NO_MARK
        self.until = 0.0
        self.closed = 0.0
        self.full_at = 0.0
        self.granted = 0
        self.spare = 0
        self.size = min(_FIRST, _most(policy))
        self.alone = 0
        self.asking = False
        self.waiting: deque[Waiter] | None = None

    def settle(self, share: int, now: float) -> None:
        """Put aside what ran out of time: who used little gets less the next time."""
        if self.tokens and now >= self.until:
            self.size = max(1, min(self.size, 2 * (self.granted - self.tokens)))
            self.spare += self.tokens
            self._charge(-self.tokens, share, now)
            self.tokens = 0

    def wanted(self) -> int:
        """How many to ask for: a slice, or as many as callers wait for."""
        waiting = sum(not each.done() for each in self.waiting) if self.waiting else 0
        return min(max(1, waiting, self.size - self.tokens), self.policy.burst)

    def grow(self) -> None:
        """It was used up while it was good: ask for more the next time."""
        self.size = min(2 * self.size, _most(self.policy))

    def close(self, until: float) -> None:
        """There is no more before `until`, and no use in asking ahead."""
        self.closed = until
        self.mark = _NO_MARK

    def take_in(self, granted: int, told: int, share: int, now: float, until: float) -> None:
        """`told` of what was taken alone have been told; what was taken since is paid now."""
        paid = min(granted, self.alone - told)
        self.alone -= told + paid
        granted -= paid
        self._charge(granted, share, now)
        self.tokens += granted
        self.granted = self.tokens
        self.until = until
        self.mark = self.tokens // 2 if self.tokens >= _SMALL else _NO_MARK

    def lacking(self, now: float) -> float:
        """Seconds until that bucket is full."""
        return max(0.0, self.full_at - now)

    def take_alone(self, share: int, now: float) -> float:
        """Take a token of that bucket: 0, or the seconds until there is one."""
        gap = share / self.policy.rate
        at = max(self.full_at, now) + gap
        wait = at - now - _whole(self.policy, share)
        if wait > _NOTHING:
            return wait
        self.full_at = at
        self.alone += 1
        return 0.0

    def _charge(self, tokens: int, share: int, now: float) -> None:
        """Tokens granted to this process, as seen from a bucket that `share` of its like share without speaking to each
        other; negative for given back."""
        full_at = max(self.full_at, now) + tokens * share / self.policy.rate
        self.full_at = min(full_at, now + _whole(self.policy, share))


def _whole(policy: Policy, share: int) -> float:
    """The time in which one of `share` such buckets fills. It holds a token at least."""
    return max(policy.burst, share) / policy.rate


def _most(policy: Policy) -> int:
    return max(1, min(math.ceil(policy.rate * AHEAD), policy.burst // _BURST_SHARE))
