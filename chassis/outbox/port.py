"""Side effects that are committed with the state that causes them, and delivered afterwards: the transactional outbox.

A service puts `outbox.records(effects)` into the commit of its change and calls `outbox.wake()` when that has landed, or
may have. The relay delivers every record at least once, in the order of the commits within one `key`, and removes it
when its consumer has acknowledged it. Consumers drop what comes twice by `id`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from chassis.store.port import Write

EVENT: Final = "event"
"""Kind of an effect whose payload is a serialized CloudEvent, to be published to the tenant's log."""
AUDIT: Final = "audit"
"""Kind of an effect whose payload is a serialized AppendEntryRequest, to be appended to the tenant's audit log."""
INVALIDATION: Final = "invalidation"
"""Kind of an effect whose payload names what is to be removed from the cache."""


@dataclass(frozen=True, slots=True)
class Effect:
    """`id` is unique in the deployment and stays the same over repetitions; `key` names what must stay in order, the
    resource as a rule (`devices/d1`)."""

    id: str
    kind: str
    tenant: str
    key: str
    payload: bytes


class Outbox(Protocol):
    """What a service's store needs."""

    def records(self, effects: Iterable[Effect]) -> list[Write]:
        """The documents that make the effects part of a commit. Kinds that this deployment does not deliver make none."""
        ...

    def wake(self) -> None:
        """Something was committed: deliver it now rather than at the next look. No I/O, never raises."""
        ...


class Deliver(Protocol):
    """The consumer of one kind."""

    async def __call__(self, effects: Sequence[Effect]) -> Sequence[BaseException | None]:
        """Deliver all of these, which are of one tenant, in order; one answer each: None when it is acknowledged, or
        what went wrong. What comes after a failed one of the same key is not delivered, and answered with Behind.

        An error that says that the consumer is away or that nobody may talk to it now (`is_away`) is tried again for as
        long as it lasts; anything else is a refusal of that effect, which after some tries parks its record. Called
        with at most 500; cancelled when it takes too long. What is raised is everybody's answer.
        """
        ...


class Behind(Exception):
    """Not tried: an earlier effect of the same key was not delivered."""


class NoOutbox:
    """For tests and services without side effects."""

    def records(self, effects: Iterable[Effect]) -> list[Write]:
        del effects
        return []

    def wake(self) -> None:
        pass
