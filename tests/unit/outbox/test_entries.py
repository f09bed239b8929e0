"""Happenings as audit entries: what the audit service takes, in the same commit as the event."""

import os
from datetime import UTC, datetime

import pytest

from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Entry
from bas.audit.v2.audit_service_pb2 import AppendEntryRequest
from chassis import context
from chassis.api.validation import compile_validator
from chassis.clock import FakeClock
from chassis.context import Call, Caller
from chassis.outbox.announcements import Announcements, Happening
from chassis.outbox.entries import fitting
from chassis.outbox.port import AUDIT, EVENT
from tests.support.outbox import RecordingOutbox

CLOCK = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


def entered(happening: Happening, caller: Caller | None = None, request_id: str = "r7") -> Entry:
    """The entry, which the audit service's own rules accept."""
    outbox = RecordingOutbox([AUDIT])
    token = context.enter(Call("test", request_id, None, caller))
    try:
        assert len(Announcements("devices", outbox, CLOCK, os.urandom).writes([happening])) == 1
    finally:
        context.leave(token)
    (effect,) = outbox.handed
    request = AppendEntryRequest.FromString(effect.payload)
    request.entry.idempotency_key = effect.id
    compile_validator(AppendEntryRequest.DESCRIPTOR)(request)
    assert (effect.tenant, effect.key) == ("acme", happening.subject)
    return request.entry


def happening(type_: str = "device.updated", **more: object) -> Happening:
    return Happening("acme", type_, "devices/d1", "device", {"deviceId": "d1"}, more)


def test_who_did_what_to_what() -> None:
    made = entered(
        happening(reason="why", changedPaths=["displayName", "labels"]), Caller("acme", "ada", frozenset(), 4e9, "s1")
    )
    assert (made.actor.subject, made.actor.session_id, made.actor.ip) == ("ada", "s1", "")
    assert (made.action, made.resource.type, made.resource.id) == ("device.updated", "device", "d1")
    assert (made.outcome, made.reason, made.request_id) == (OUTCOME_SUCCESS, "why", "r7")
    assert dict(made.metadata) == {"changedPaths": "displayName,labels"}
    assert made.occur_time.ToDatetime(UTC) == CLOCK.now()


def test_background_work_is_the_services_own() -> None:
    made = entered(happening("device.offline"), request_id="")
    assert (made.actor.subject, made.request_id) == ("service:devices", "")


@pytest.mark.parametrize("subject", ["x" * 128, "x" * 129, "ü" * 256])
def test_any_subject_of_a_credential_fits(subject: str) -> None:
    made = entered(happening(reason="r" * 300), Caller("acme", subject, frozenset(), 4e9, "not an id"))
    assert made.actor.subject == fitting(subject)
    assert made.actor.session_id == ""
    assert len(made.actor.subject) <= 128
    assert fitting(subject) != fitting(subject + "y")


def test_each_change_is_an_event_and_an_entry_of_ids_of_their_own() -> None:
    outbox = RecordingOutbox()
    writes = Announcements("devices", outbox, CLOCK, os.urandom).writes([happening(), happening("device.online")])
    assert [effect.kind for effect in outbox.handed] == [EVENT, AUDIT, EVENT, AUDIT]
    assert len({effect.id for effect in outbox.handed}) == len(writes) == 4
