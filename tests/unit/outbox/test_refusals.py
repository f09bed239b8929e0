"""Refusals on their way to the log: once a window, once each, and none lost while who takes them is away."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from bas.audit.v2.audit_pb2 import OUTCOME_DENIED, Entry
from bas.audit.v2.audit_service_pb2 import AppendEntryRequest
from chassis.api.validation import compile_validator
from chassis.auth.refusals import FURTHER, IN_ALL, OF_TENANT, Refusals, Refused
from chassis.clock import FakeClock, SystemClock
from chassis.context import Caller
from chassis.errors import invalid_field, permission_denied, unavailable
from chassis.outbox.port import Effect
from chassis.outbox.refusals import WAITING, RefusalLog, Write, committing, delivering
from chassis.store.port import DocumentStore, Schema, StoreUnavailable
from chassis.store.sqlite import SqliteStore
from chassis.telemetry.metrics import Metrics
from tests.support import patience
from tests.support.outbox import LosingStore, RecordingOutbox

GET = "/bas.devices.v2.DeviceService/GetDevice"


class Auditor:
    """The audit service as a consumer: away if told so, and refusing what is of the tenant `bad`."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.away = False
        self.lossy = False
        self.calls = 0

    async def deliver(self, effects: Sequence[Effect]) -> Sequence[BaseException | None]:
        self.calls += 1
        assert len({effect.tenant for effect in effects}) == 1
        if self.away:
            raise unavailable("AWAY", "Away.")
        if effects[0].tenant == "bad":
            return [invalid_field("entry", "no")] * len(effects)
        for effect in effects:
            entry = entry_of(effect)
            assert self.entries.setdefault(effect.id, entry) == entry
        if self.lossy:
            raise unavailable("LOST", "The answer was lost.")
        return [None] * len(effects)


class Rig:
    """A log of `gateway`, before an auditor or what else takes its effects."""

    def __init__(self, write: Write | None = None) -> None:
        self.clock, self.metrics, self.auditor = FakeClock(), Metrics(), Auditor()
        self.refusals = Refusals(self.clock, self.metrics)
        write = write or delivering(self.auditor.deliver, self.refusals)
        self.log = RefusalLog("gateway", self.refusals, write, self.clock, 60.0, os.urandom)

    def refuse(self, tenant: str = "acme", subject: str = "ada", session: str = "", method: str = GET) -> None:
        who = Caller(tenant, subject, frozenset(), 0.0, session)
        self.refusals.caught(Refused(permission_denied("devices:read"), "SCOPE_MISSING", who), method, "r1")

    @property
    def lost(self) -> float:
        return self.metrics.registry.get_sample_value("bas_refusals_unrecorded_total") or 0.0


def entry_of(effect: Effect) -> Entry:
    """The entry, which the audit service's own rules accept."""
    request = AppendEntryRequest.FromString(effect.payload)
    request.entry.idempotency_key = effect.id
    compile_validator(AppendEntryRequest.DESCRIPTOR)(request)
    return request.entry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    made = await SqliteStore.open(tmp_path / "s.db", Schema(), clock=SystemClock(), budget=patience.STORE)
    yield made
    await made.close()


async def test_a_window_is_one_entry_for_each_kind() -> None:
    rig = Rig()
    running = asyncio.create_task(rig.log.run())
    rig.refuse()
    await rig.clock.advance(59)
    rig.refuse()
    rig.refuse(session="s1", subject="ü" * 256, method="")
    assert not rig.auditor.entries
    await rig.clock.advance(1)
    twice, once = sorted(rig.auditor.entries.values(), key=lambda entry: entry.metadata["count"], reverse=True)
    assert (twice.action, twice.outcome, twice.reason) == ("access.refused", OUTCOME_DENIED, "SCOPE_MISSING")
    assert (twice.actor.subject, twice.resource.type, twice.resource.id) == ("ada", "method", GET[1:])
    assert dict(twice.metadata) == {
        "count": "2", "first": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:00:59Z", "recordedBy": "gateway",
    }  # fmt: skip
    assert (twice.request_id, once.actor.session_id, len(once.actor.subject)) == ("r1", "s1", 128)
    await rig.clock.advance(600)
    assert rig.auditor.calls == 1  # nothing refused, nothing said
    rig.refuse()
    await rig.clock.advance(60)
    assert len(rig.auditor.entries) == 3  # the same in another window is another entry
    running.cancel()
    await asyncio.wait({running})


async def test_a_flood_is_a_bounded_number_of_entries() -> None:
    rig = Rig()
    for number in range(100_000):
        rig.refuse(subject=f"u{number}")
    await rig.log.flush()
    assert len(rig.auditor.entries) == OF_TENANT + 1
    (rest,) = (entry for entry in rig.auditor.entries.values() if entry.reason == FURTHER)
    assert (rest.actor.subject, rest.metadata["count"]) == ("service:gateway", str(100_000 - OF_TENANT))


async def test_while_the_audit_service_is_away_windows_wait_and_memory_is_bounded() -> None:
    rig = Rig()
    rig.auditor.away = True
    for minute in range(10):
        for number in range(IN_ALL):
            rig.refuse(tenant=f"t{number}")
        await rig.log.flush()
        assert rig.auditor.calls == minute + 1  # asked once in a round
    assert rig.log.waiting == WAITING == 2 * IN_ALL
    rig.auditor.away = False
    await rig.log.flush()
    await rig.log.flush()
    counts = [int(entry.metadata["count"]) for entry in rig.auditor.entries.values()]
    assert sum(counts) == 10 * IN_ALL
    assert (len(counts), rig.lost, rig.log.waiting) == (3 * IN_ALL, 0, 0)


async def test_a_lost_answer_adds_nothing() -> None:
    rig = Rig()
    rig.refuse()
    rig.auditor.lossy = True
    await rig.log.flush()
    assert rig.log.waiting == 1
    rig.refuse()
    rig.auditor.lossy = False
    await rig.log.flush()
    assert [entry.metadata["count"] for entry in rig.auditor.entries.values()] == ["1", "1"]


async def test_what_is_refused_is_not_tried_again_and_holds_nobody_up() -> None:
    rig = Rig()
    rig.refuse("bad")
    rig.refuse("good")
    await rig.log.flush()
    assert (len(rig.auditor.entries), rig.log.waiting, rig.lost) == (1, 0, 1)


async def test_at_the_end_what_is_left_is_written_or_counted() -> None:
    rig = Rig()
    rig.refuse()
    await rig.log.close()
    assert (len(rig.auditor.entries), rig.lost) == (1, 0)
    rig.auditor.away = True
    rig.refuse()
    await rig.log.close()
    assert rig.lost == 1


async def test_a_service_commits_them_to_its_own_outbox_once(store: DocumentStore) -> None:
    outbox, losing = RecordingOutbox(), LosingStore(store)
    rig = Rig(committing(losing, outbox))
    for number in range(600):
        rig.refuse(tenant=f"t{number}")
    losing.failure = StoreUnavailable()
    await rig.log.flush()
    assert rig.log.waiting == 600
    losing.lost = 1  # committed, and not known to be
    await rig.log.flush()
    await rig.log.flush()
    assert rig.log.waiting == 0
    committed = await outbox.committed(store)
    assert {entry_of(effect).metadata["count"] for effect in committed} == {"1"}
    assert len(committed) == 600
    assert outbox.wakes
