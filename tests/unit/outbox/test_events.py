"""The events service as a consumer: what it is sent, and how one bad event is told from the rest."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from google.protobuf.descriptor import MethodDescriptor

from bas.events.v2.events_service_pb2 import PublishEventsRequest
from chassis.errors import ApiError, Code, invalid_field, unavailable
from chassis.interceptors.client import Metadata, UnaryCall
from chassis.outbox.effects import event
from chassis.outbox.events import WEIGHT, deliver_events
from chassis.outbox.port import EVENT, Behind, Effect

WHEN = datetime(2026, 5, 1, tzinfo=UTC)


class Service:
    """PublishEvents as the port of a peer has it: all of a request, or none when `judge` finds something in it."""

    def __init__(self, judge: Callable[[PublishEventsRequest], ApiError | None] = lambda request: None) -> None:
        self.requests: list[list[str]] = []
        self.published: list[str] = []
        self.tenants: list[str] = []
        self._judge = judge

    def unary(self, method: MethodDescriptor) -> UnaryCall:
        assert method.name == "PublishEvents"

        async def call(request: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:  # noqa: ASYNC109
            assert timeout is not None
            sent = PublishEventsRequest.FromString(request)
            ids = [each.id for each in sent.events]
            self.requests.append(ids)
            self.tenants.append(dict(metadata)["tenant"])
            problem = self._judge(sent)
            if problem is not None:
                raise problem
            self.published += ids
            return b""

        return call

    def as_tenant(self, tenant: str, scope: str) -> Metadata:
        assert scope == "events:write"
        return (("tenant", tenant),)


def told(name: str, subject: str = "", size: int = 0) -> Effect:
    return event(name, "acme", "/bas/devices", "device.created", subject or f"devices/{name}", WHEN, {"x": "y" * size})


def refusing(*names: str) -> Callable[[PublishEventsRequest], ApiError | None]:
    def judge(request: PublishEventsRequest) -> ApiError | None:
        bad = any(each.id in names for each in request.events)
        return invalid_field("events", "has a bad one") if bad else None

    return judge


async def test_events_of_a_tenant_are_one_publication_in_its_name() -> None:
    service = Service()
    answers = await deliver_events(service)([told("a"), told("b")])
    assert list(answers) == [None, None]
    assert service.requests == [["a", "b"]]
    assert service.tenants == ["acme"]


@pytest.mark.parametrize("bad", [[0], [9], [4], [2, 7], list(range(10))])
async def test_bad_events_are_found_and_the_others_published_in_order(bad: Sequence[int]) -> None:
    names = [f"e{number}" for number in range(10)]
    service = Service(refusing(*(names[number] for number in bad)))
    answers = await deliver_events(service)([told(name) for name in names])
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, ApiError)]
    assert failed == list(bad)
    assert service.published == [name for number, name in enumerate(names) if number not in bad]


async def test_what_follows_a_bad_one_of_its_key_is_not_published() -> None:
    service = Service(refusing("bad"))
    effects = [told("a", "s1"), told("bad", "s1"), told("b", "s2"), told("late", "s1"), told("c", "s2")]
    answers = await deliver_events(service)(effects)
    assert [type(answer) for answer in answers] == [type(None), ApiError, type(None), Behind, type(None)]
    assert service.published == ["a", "b", "c"]


async def test_a_service_that_is_away_is_asked_once() -> None:
    service = Service(lambda request: unavailable("AWAY", "away"))
    answers = await deliver_events(service)([told("a"), told("b")])
    assert len(service.requests) == 1
    assert [answer.code for answer in answers if isinstance(answer, ApiError)] == [Code.UNAVAILABLE] * 2


async def test_a_service_that_refuses_everything_is_asked_a_bounded_number_of_times() -> None:
    service = Service(lambda request: ApiError(Code.INTERNAL, "INTERNAL", "a bug"))
    answers = await deliver_events(service)([told(f"e{number}") for number in range(500)])
    assert len(service.requests) <= 64
    assert None not in answers
    assert any(isinstance(answer, ApiError) for answer in answers)


async def test_no_publication_is_larger_than_a_message_may_be() -> None:
    service = Service()
    names = [f"e{number}" for number in range(100)]
    answers = await deliver_events(service)([told(name, size=60_000) for name in names])
    assert set(answers) == {None}
    assert service.published == names
    assert len(service.requests) == -(-100 * 60_000 // WEIGHT)


async def test_a_payload_that_is_no_event_is_refused_alone() -> None:
    service = Service()
    broken = Effect("broken", EVENT, "acme", "k", b"\xff\xff")
    answers = await deliver_events(service)([told("a"), broken, told("b")])
    assert [type(answer) for answer in answers] == [type(None), ApiError, type(None)]
    assert service.published == ["a", "b"]
