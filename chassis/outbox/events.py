"""The consumer of events: the events service, which drops what it had before by source and id."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from bas.events.v2 import events_service_pb2
from bas.events.v2.events_pb2 import CloudEvent
from chassis import policies
from chassis.errors import ApiError, internal
from chassis.module import Peer
from chassis.outbox.blocks import is_away
from chassis.outbox.port import Behind, Deliver, Effect

SERVICE: Final = "events"
TIMEOUT: Final = 2.0
"""Seconds for one publication: a full one is a hundred times a usual one."""
WEIGHT: Final = 2 * 1024 * 1024
"""Bytes of one publication: half of the largest message."""

_SPLITS: Final = 64
"""Publications that one delivery is split into at most, in search of what is refused."""
_PUBLISH: Final = events_service_pb2.DESCRIPTOR.services_by_name["EventService"].methods_by_name["PublishEvents"]

_Publish = Callable[[Sequence[Effect]], Awaitable[None]]


def deliver_events(peer: Peer) -> Deliver:
    """Publishes events as the tenant they are of, all of a delivery at once unless it is refused. No I/O."""
    call = peer.unary(_PUBLISH)
    scope = policies.of_method(_PUBLISH).scope

    async def publish(effects: Sequence[Effect]) -> None:
        request = events_service_pb2.PublishEventsRequest()
        for effect in effects:
            try:
                request.events.append(CloudEvent.FromString(effect.payload))
            except DecodeError:
                raise internal("The payload is no CloudEvent.") from None
        await call(request.SerializeToString(), TIMEOUT, peer.as_tenant(effects[0].tenant, scope))

    async def deliver(effects: Sequence[Effect]) -> Sequence[BaseException | None]:
        return await _Splitting(publish, effects).answers()

    return deliver


class _Splitting:
    """All or nothing, made into one answer each: what is refused as a whole is halved until the culprit is alone."""

    def __init__(self, publish: _Publish, effects: Sequence[Effect]) -> None:
        self._publish = publish
        self._effects = effects
        self._answers: list[BaseException | None] = [Behind()] * len(effects)
        self._failed: set[str] = set()
        self._left = _SPLITS

    async def answers(self) -> Sequence[BaseException | None]:
        parts = [list(part) for part in _portions(self._effects)]
        parts.reverse()
        while parts:
            part = [each for each in parts.pop() if self._effects[each].key not in self._failed]
            if not part:
                continue
            try:
                await self._publish([self._effects[each] for each in part])
            except ApiError as failure:
                if is_away(failure):
                    self._fail([*part, *(each for rest in parts for each in rest)], failure)
                    break
                self._left -= 1
                if len(part) == 1 or self._left <= 0:
                    self._fail(part[:1], failure)
                    parts.append(part[1:])
                    if self._left <= 0:
                        break
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
            else:
                for each in part:
                    self._answers[each] = None
        return self._answers

    def _fail(self, indexes: Sequence[int], failure: BaseException) -> None:
        for each in indexes:
            self._answers[each] = failure
            self._failed.add(self._effects[each].key)


def _portions(effects: Sequence[Effect]) -> "list[range]":
    """Runs of effects that fit into one message each."""
    portions: list[range] = []
    first = weight = 0
    for number, effect in enumerate(effects):
        weight += len(effect.payload)
        if weight > WEIGHT and number > first:
            portions.append(range(first, number))
            first, weight = number, len(effect.payload)
    portions.append(range(first, len(effects)))
    return portions
