"""Exchanging a token for its successor without forks, and telling a repetition from a theft. No I/O.

A session has one current generation. A token that was exchanged stays good for a grace, in which exchanging it again
gives the same successor: an answer was lost, or two callers refreshed at once. Used after its grace, it was kept by
somebody who should not have it. Moments are microseconds since the epoch.
"""

import hmac
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

REMEMBERED: Final = 8
"""Exchanges whose moments are kept: so many can be in their grace at once."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What is kept of a session's tokens: the current generation, its token's digest, and when the generations before
    it were exchanged, the latest first."""

    generation: int
    digest: bytes = field(repr=False)
    exchanged: tuple[int, ...] = ()


class Standing(Enum):
    """What a genuine token of some generation is worth."""

    CURRENT = "current"
    IN_GRACE = "in grace"
    STOLEN = "stolen"
    UNKNOWN = "unknown"


def standing(generation: int, secret: Secret, now: int, grace: int) -> Standing:
    """`generation` is that of a token that was made with the server's key."""
    age = secret.generation - generation
    if age == 0:
        return Standing.CURRENT
    if age < 0:
        return Standing.UNKNOWN
    # A clock that was set back makes the age of an exchange negative: still in its grace.
    if age <= len(secret.exchanged) and now - secret.exchanged[age - 1] <= grace:
        return Standing.IN_GRACE
    return Standing.STOLEN


def same(presented: bytes, kept: bytes) -> bool:
    """Whether two digests are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(presented, kept)


def full(secret: Secret, now: int, grace: int) -> bool:
    """Whether one more exchange would forget one that is still in its grace."""
    return len(secret.exchanged) >= REMEMBERED and now - secret.exchanged[REMEMBERED - 1] <= grace


def exchanged(secret: Secret, digest: bytes, now: int) -> Secret:
    """After the current token was exchanged for the one with that digest."""
    # Moments never decrease towards the present, whatever the clock did: a grace that ended stays ended.
    moment = max(now, secret.exchanged[0]) if secret.exchanged else now
    return Secret(secret.generation + 1, digest, (moment, *secret.exchanged)[:REMEMBERED])
