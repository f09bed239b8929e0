"""Appending: durable, once for ever, as far as was asked."""

import asyncio

from bas.audit.v2.audit_pb2 import Entry
from bas.audit.v2.audit_service_pb2 import BatchAppendEntriesRequest
from chassis.clock import FakeClock, SystemClock
from chassis.store.port import StoreTimeout, StoreUnavailable, Write
from launcher.verifier.tree import includes
from services.audit.records import BATCHES
from tests.integration.audit.calls import (
    INTEGRATED,
    SEQUENCED,
    append,
    append_all,
    checkpoint,
    entry,
    exported,
    get,
    listed,
    refused,
)
from tests.integration.audit.conftest import Make, Replica, acting, passes, running, settings


async def test_an_entry_is_durable_when_it_is_acknowledged(audit: Replica, replica: Make) -> None:
    answer = await append(audit, "k1")
    assert answer.acknowledgement == 1
    assert not answer.entry.HasField("sequence")
    assert answer.entry.occur_time == answer.entry.record_time
    assert await get(replica(), answer.entry.entry_id) == answer.entry


async def test_a_repetition_gets_the_first_entry(audit: Replica, clock: FakeClock) -> None:
    first = await append(audit, "k1")
    clock.step_wall(-3600)
    assert await append(audit, "k1") == first
    assert (await append(audit, "k1", SEQUENCED)).entry.sequence == 0
    again = await append(audit, "k1")
    assert again.entry.record_time == first.entry.record_time


async def test_another_content_under_the_same_key_is_refused_and_the_first_stays(audit: Replica) -> None:
    first = await append(audit, "k1")
    with refused("IDEMPOTENCY_KEY_REUSED"):
        await append(audit, "k1", reason="other")
    assert await get(audit, first.entry.entry_id) == first.entry
    with acting("other"):
        assert (await append(audit, "k1", reason="other")).entry.entry_id != first.entry.entry_id


async def test_a_batch_answers_each_for_itself(audit: Replica) -> None:
    await append(audit, "old")
    entries = [
        entry("new"),
        entry("old"),
        entry("old", reason="other"),
        Entry(idempotency_key="bad"),
        entry("new"),
        entry("new", reason="other"),
    ]
    results = (await audit.api.BatchAppendEntries(BatchAppendEntriesRequest(entries=entries))).results
    said = [each.error.reason if each.HasField("error") else "" for each in results]
    assert said == ["", "", "IDEMPOTENCY_KEY_REUSED", "INVALID_ARGUMENT", "", "IDEMPOTENCY_KEY_REUSED"]
    assert results[0].appended == results[4].appended
    assert sorted(await listed(audit)) == ["new", "old"]


async def test_the_levels(audit: Replica) -> None:
    answer = await append(audit, "k1", SEQUENCED)
    assert (answer.entry.sequence, answer.acknowledgement) == (0, SEQUENCED)
    results = await append_all(audit, "k2", "k1", "k3", level=INTEGRATED)
    assert [each.appended.entry.sequence for each in results] == [1, 0, 2]
    for each in results:
        proof = each.appended.inclusion_proof
        assert proof.checkpoint.tree_size == proof.tree_size == 3
        root = proof.checkpoint.root_hash
        assert includes(root, 3, proof.leaf_index, proof.leaf_hash, list(proof.hashes))


async def test_a_deadline_that_passes_leaves_the_entry(replica: Make) -> None:
    """Nothing is ever sequenced here."""
    audit = replica(by=SystemClock())
    stuck = asyncio.Event()

    async def hold(writes: "list[Write]") -> None:
        if any(write.key.collection == BATCHES for write in writes):
            await stuck.wait()

    audit.store.before = hold  # type: ignore[assignment]  # a list is a sequence
    for seconds in (1.0, 5.0, 30.0):  # a busy machine may need longer to append
        with acting("acme", seconds=seconds), refused("DEADLINE_EXCEEDED"):
            await append(audit, "k1", SEQUENCED)
        with acting("acme"):
            if await listed(audit):
                break
    with acting("acme"):
        assert await listed(audit) == ["k1"]


async def test_entries_are_sequenced_by_the_loop(audit: Replica, clock: FakeClock) -> None:
    async with running(audit, "sequencer"):
        answer = await append(audit, "k1")

        async def numbered() -> bool:
            return (await get(audit, answer.entry.entry_id)).HasField("sequence")

        await passes(clock, numbered, "a sequence")


async def test_what_another_process_left_is_found(audit: Replica, replica: Make, clock: FakeClock) -> None:
    """It died between append and sequence. So did its tenant's clock: nothing depends on that."""
    for tenant in ("acme", "b", "b-2", "b0", "c"):
        with acting(tenant):
            await append_all(audit, *(f"{tenant}-{number}" for number in range(3)))
    other = replica()
    async with running(other, "sequencer"):
        await passes(clock, lambda: other.sample("bas_audit_sequenced_total") == 15, "all of them sequenced")
    with acting("b"):
        assert (await append(audit, "b-1", SEQUENCED)).entry.sequence == 1


async def test_ten_thousand_that_wait(audit: Replica) -> None:
    """After an outage, of single entries and of batches; the order of the log is that of their arrival."""
    await append_all(audit, *(f"s{number}" for number in range(3)))
    for first in range(0, 10_000, 500):
        await append_all(audit, *(f"k{first + number}" for number in range(500)))
    answer = await append(audit, "last", SEQUENCED)
    assert answer.entry.sequence == 10_003
    assert audit.sample("bas_audit_batches_total") < 50
    assert (await append(audit, "k5000")).entry.entry_id


async def test_a_commit_whose_answer_was_lost(replica: Make) -> None:
    """Whichever it was: the entry is there once."""
    audit = replica(by=SystemClock())
    with acting("acme"):
        await lost_answers(audit, replica)


async def lost_answers(audit: Replica, replica: Make) -> None:

    def lose(writes: "list[Write]") -> None:
        raise StoreTimeout

    audit.store.after = lose  # type: ignore[assignment]
    with refused("STORE_TIMEOUT"):
        await append(audit, "k1")
    audit.store.after = replica().store.after
    assert (await append(audit, "k1", SEQUENCED)).entry.sequence == 0

    def lose_batches(writes: "list[Write]") -> None:
        if any(write.key.collection == BATCHES for write in writes):
            raise StoreTimeout

    audit.store.after = lose_batches  # type: ignore[assignment]
    with refused("STORE_TIMEOUT"):
        await append(audit, "k2", SEQUENCED)
    audit.store.after = replica().store.after
    answers = [await append(audit, key, SEQUENCED) for key in ("k1", "k2", "k3")]
    assert [each.entry.sequence for each in answers] == [0, 1, 2]


async def test_a_store_that_is_away_fails_the_batch_as_a_whole(audit: Replica) -> None:
    def away(writes: "list[Write]") -> None:
        raise StoreUnavailable

    audit.store.before = away  # type: ignore[assignment]
    with refused("STORE_UNAVAILABLE"):
        await append_all(audit, "k1", "k2")


async def test_entries_at_the_size_limits(audit: Replica) -> None:
    """The largest entry there can be, and as many as a message holds."""
    text = "\N{SNOWMAN}"
    metadata = {f"{number:02d}{text * 62}": text * 341 + "x" for number in range(64)}
    largest = [entry(f"{number}" + "k" * 120, metadata=metadata, reason=text * 256) for number in range(40)]
    assert largest[0].ByteSize() > 75_000
    request = BatchAppendEntriesRequest(entries=largest, acknowledgement=INTEGRATED)
    results = (await audit.api.BatchAppendEntries(request)).results
    assert [each.appended.entry.sequence for each in results] == list(range(40))
    assert len(await exported(audit)) == 41
    assert len(await listed(audit)) == 40


async def test_a_batch_that_no_answer_has_room_for_is_refused_before_anything_is_stored(audit: Replica) -> None:
    large = {f"{number}": "x" * 1024 for number in range(60)}
    request = BatchAppendEntriesRequest(entries=[entry(f"{number}", metadata=large) for number in range(70)])
    with refused("INVALID_ARGUMENT"):
        await audit.api.BatchAppendEntries(request)
    assert await listed(audit) == []


async def test_a_log_of_batches_of_one(replica: Make) -> None:
    """Each batch as small as it may be: the log is the same, and a tenant of one entry is no other than one of many."""
    small = replica(settings(sequence_batch=1))
    with acting("acme"):
        await append_all(small, *(f"k{number}" for number in range(20)))
        assert (await append(small, "k7", SEQUENCED)).entry.sequence == 7
        assert (await append(small, "k19", INTEGRATED)).entry.sequence == 19
        assert (await checkpoint(small)).tree_size == 20
