"""Consumers to deliver to, which drop what comes twice as real ones do, and a post office of outbox and relay over a store."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chassis.clock import Clock
from chassis.config import Outbox as Settings
from chassis.config import Seconds
from chassis.errors import ApiError, Code, unavailable
from chassis.outbox.committed import CommittedOutbox
from chassis.outbox.port import EVENT, Behind, Deliver, Effect
from chassis.outbox.relay import Relay, no_retries
from chassis.store.port import DocumentStore
from chassis.telemetry.metrics import Metrics

POISON = b"poison"
AWAY = unavailable("AWAY", "The consumer is away.", retry_after=0.0)
REFUSED = ApiError(Code.INVALID_ARGUMENT, "BAD", "The consumer wants none of this.")


def effect(name: str, key: str = "devices/d1", tenant: str = "acme", payload: bytes = b"", kind: str = EVENT) -> Effect:
    return Effect(name, kind, tenant, key, payload)


@dataclass
class Consumer:
    """Takes each effect once, and refuses those with `POISON` in them. `took` is what had an effect, in order; `came` how
    often each was delivered."""

    took: list[Effect] = field(default_factory=list)
    came: Counter[str] = field(default_factory=Counter)
    deliveries: list[int] = field(default_factory=list)
    away: ApiError | None = None
    before: Callable[[Sequence[Effect]], Awaitable[None]] | None = None
    after: Callable[[Sequence[Effect]], Awaitable[None]] | None = None

    async def __call__(self, effects: Sequence[Effect]) -> list[BaseException | None]:
        assert len({each.tenant for each in effects}) == 1
        if self.before is not None:
            await self.before(effects)
        self.deliveries.append(len(effects))
        await asyncio.sleep(0)
        answers: list[BaseException | None] = []
        failed: set[str] = set()
        for each in effects:
            if self.away is not None:
                answers.append(self.away)
            elif each.key in failed:
                answers.append(Behind())
            elif POISON in each.payload:
                failed.add(each.key)
                answers.append(REFUSED)
            else:
                self.take(each)
                answers.append(None)
        if self.after is not None:
            await self.after(effects)
        return answers

    def take(self, each: Effect) -> None:
        self.came[each.id] += 1
        if self.came[each.id] == 1:
            self.took.append(each)

    def ids(self, key: str | None = None, tenant: str | None = None) -> list[str]:
        return [
            each.id
            for each in self.took
            if (key is None or each.key == key) and (tenant is None or each.tenant == tenant)
        ]


class Office:
    """One process: its outbox, its relay, and commits through them."""

    def __init__(
        self,
        store: DocumentStore,
        delivers: Mapping[str, Deliver] | Deliver,
        clock: Clock,
        *,
        by: str = "one",
        batch: int = 200,
        attempts: int = 3,
        relay: type[Relay] = Relay,
        retries: Callable[[], Awaitable[int]] = no_retries,
    ) -> None:
        held = delivers if isinstance(delivers, Mapping) else {EVENT: delivers}
        settings = Settings(poll_interval=Seconds(1), batch=batch, attempts=attempts, longest_wait=Seconds(15))
        self.metrics = Metrics()
        self.store = store
        self.relay = relay(store, held, clock, settings, self.metrics, by=by, random=lambda: 0.5, retries=retries)
        self.outbox = CommittedOutbox(clock, by)
        self.outbox.open(held, self.relay.wake)

    async def commit(self, *effects: Effect) -> None:
        await self.store.commit(self.outbox.records(effects))
        self.outbox.wake()

    async def commit_all(self, effects: Iterable[Effect]) -> None:
        """Each in a commit of its own, those of other keys at the same time."""
        by_key: dict[str, list[Effect]] = {}
        for each in effects:
            by_key.setdefault(each.key, []).append(each)

        async def one(some: list[Effect]) -> None:
            for each in some:
                await self.commit(each)

        await asyncio.gather(*map(one, by_key.values()))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0
