"""What a service tells of its own changes, with who asked for it: events and audit entries in the commit of the change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chassis import context
from chassis.api.ids import new_id
from chassis.clock import Clock
from chassis.outbox.effects import event
from chassis.outbox.entries import entry
from chassis.outbox.port import Effect, Outbox
from chassis.store.port import Write

MOST_BYTES: Final = 64 * 1024
"""Of a whole event: what the events service takes as its data alone."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One event to be: `device.created` of `devices/d1`. `resource` is what is shown of it, under the name `noun`;
    `more` is what else there is to say."""

    tenant: str
    type: str
    subject: str
    noun: str
    resource: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


class Announcements:
    """Makes a service's happenings part of its commits, each as an event and as an audit entry: source `/bas/<service>`, an id of its own each, the time of the
    decision, the subject of the caller as `actor` (the service itself in background work), and the request's id."""

    def __init__(self, service: str, outbox: Outbox, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._service = service
        self._outbox = outbox
        self._clock = clock
        self._random_bytes = random_bytes

    def writes(self, happenings: Iterable[Happening], *more: Effect) -> list[Write]:
        """What belongs into the commit, in this order; nothing where there is nobody to tell. Ask once for each change:
        to commit the same writes again is to tell the same events."""
        effects = [*(effect for each in happenings for effect in (self._effect(each), self._entry(each))), *more]
        return self._outbox.records(effects) if effects else []

    def keeps(self, effect: Effect) -> bool:
        """Whether this deployment delivers effects of that kind."""
        return bool(self._outbox.records([effect]))

    def wake(self) -> None:
        """The commit has landed, or may have."""
        self._outbox.wake()

    def effect(self, kind: str, tenant: str, key: str, payload: bytes) -> Effect:
        """An effect that is no event, with an id of its own."""
        return Effect(new_id(self._random_bytes), kind, tenant, key, payload)

    def _entry(self, happening: Happening) -> Effect:
        made = new_id(self._random_bytes)
        now = self._clock.now()
        about = (happening.noun, happening.subject)
        return entry(made, happening.tenant, self._service, happening.type, about, now, happening.more)

    def _effect(self, happening: Happening) -> Effect:
        event_id, now = new_id(self._random_bytes), self._clock.now()
        about = {**happening.more, **_cause(self._service)}
        resource = dict(happening.resource)
        left_out: list[str] = []
        while True:
            data: dict[str, Any] = {happening.noun: resource, **about}
            if left_out:
                data["leftOut"] = left_out
            made = event(
                event_id, happening.tenant, f"/bas/{self._service}", happening.type, happening.subject, now, data
            )
            largest = max(resource, key=lambda name: _weight(resource[name]), default="")
            if len(made.payload) <= MOST_BYTES or _weight(resource.get(largest)) <= 1:
                return made
            left_out.append(largest)
            del resource[largest]


def changed_paths(before: Message, after: Message, but: frozenset[str]) -> list[str]:
    """Names of the top-level fields that differ, as JSON has them, in the order of their numbers, without `but`."""
    descriptor: Any = before.DESCRIPTOR
    fields: list[FieldDescriptor] = sorted(descriptor.fields, key=lambda field: field.number)
    return [
        field.json_name for field in fields if field.name not in but and _value(before, field) != _value(after, field)
    ]


def _value(message: Message, field: FieldDescriptor) -> object:
    if field.has_presence and not message.HasField(field.name):
        return None
    return getattr(message, field.name)


def _cause(service: str) -> dict[str, str]:
    call = context.current()
    caller = None if call is None else call.caller
    cause = {"actor": f"service:{service}" if caller is None else caller.subject}
    if call is not None and call.request_id:
        cause["requestId"] = call.request_id
    return cause


def _weight(value: object) -> int:
    """About how much room a part of a resource takes: characters, or more than one for what has parts."""
    if isinstance(value, str):
        return 1
    if isinstance(value, Mapping):
        return sum(len(str(name)) + len(str(item)) for name, item in value.items()) + 1
    if isinstance(value, Sequence):
        return sum(len(str(item)) for item in value) + 1
    return 1
