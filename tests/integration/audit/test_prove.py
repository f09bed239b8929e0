"""Checkpoints, proofs and exports: as the verifier, which shares no code with the service, understands them."""

import asyncio
import json

import pytest
from google.protobuf import json_format

from bas.audit.v2.audit_pb2 import Checkpoint
from bas.audit.v2.audit_service_pb2 import (
    ErasePersonalDataRequest,
    ExportEntriesResponse,
    GetConsistencyProofRequest,
    GetVerifierKeyRequest,
)
from chassis.clock import FakeClock
from chassis.store.port import Key, Put, StoreCorrupt, Update
from launcher.verifier import note
from launcher.verifier.entry import State, read
from launcher.verifier.tree import Tree, extends, includes
from services.audit.records import CHECKPOINTS, TILES
from tests.integration.audit.calls import (
    INTEGRATED,
    SEQUENCED,
    append,
    append_all,
    checkpoint,
    exported,
    proof,
    refused,
)
from tests.integration.audit.conftest import Make, Replica, acting, passes, running, settings


def line(message: ExportEntriesResponse) -> bytes:
    """As the gateway writes it."""
    shown = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()


async def key_of(audit: Replica) -> note.Key:
    return note.parse_key((await audit.api.GetVerifierKey(GetVerifierKeyRequest())).key)


async def test_a_log_of_three_tiles_is_proven_at_every_checkpoint(
    audit: Replica, replica: Make, clock: FakeClock
) -> None:
    """By a process that has seen none of it made."""
    signed: list[Checkpoint] = []
    entries: list[str] = []
    for count in (1, 2, 252, 1, 1, 300, 211, 7):
        keys = [f"k{len(entries) + number}" for number in range(count)]
        results = await append_all(audit, *keys, level=INTEGRATED)
        entries += [each.appended.entry.entry_id for each in results]
        signed.append(results[0].appended.inclusion_proof.checkpoint)
        await clock.advance(2)
    fresh, key = replica(), await key_of(audit)
    for each in signed:
        assert await checkpoint(fresh, each.tree_size) == each
        read_note = note.parse(each.note)
        note.verify(read_note, key)
        assert (read_note.size, read_note.root) == (each.tree_size, each.root_hash)
        for index in {0, each.tree_size // 2, each.tree_size - 1, min(256, each.tree_size - 1)}:
            shown = await proof(fresh, entries[index], each.tree_size)
            assert includes(each.root_hash, each.tree_size, index, shown.leaf_hash, list(shown.hashes))
            assert shown.checkpoint == each
        for earlier in signed:
            if earlier.tree_size <= each.tree_size:
                request = GetConsistencyProofRequest(first_tree_size=earlier.tree_size, second_tree_size=each.tree_size)
                hashes = list((await fresh.api.GetConsistencyProof(request)).hashes)
                sizes = earlier.tree_size, each.tree_size
                assert extends(earlier.root_hash, sizes[0], each.root_hash, sizes[1], hashes)


async def test_an_export_is_verified_from_its_lines(audit: Replica) -> None:
    ids = [each.appended.entry.entry_id for each in await append_all(audit, *(f"k{n}" for n in range(300)))]
    await append(audit, "é", INTEGRATED, metadata={"ключ": '"\\', "a": ""}, reason="why / not", request_id="r")
    await audit.api.ErasePersonalData(ErasePersonalDataRequest(entry_id=ids[5]))
    first, *rest = await exported(audit)
    tree = Tree()
    states = set()
    for number, message in enumerate(rest):
        found = read(line(message))
        assert (found.sequence, found.fault, found.leaf) == (number, None, found.stated)
        tree.append(found.leaf)
        states.add(found.state)
    assert (tree.size, tree.root()) == (first.checkpoint.tree_size, first.checkpoint.root_hash)
    assert states == {State.WHOLE, State.ERASED}


async def test_an_export_goes_on_where_it_was_cut_off(audit: Replica, replica: Make, clock: FakeClock) -> None:
    await append_all(audit, *(f"k{n}" for n in range(90)), level=INTEGRATED)
    whole = await exported(audit)
    await clock.advance(2)
    await append_all(audit, *(f"m{n}" for n in range(9)), level=INTEGRATED)
    for at in (1, 25, 26, 90):
        rest = await exported(replica(), cursor=whole[at].entry.cursor)
        assert rest == [whole[0], *whole[at + 1 :]]
    assert len(await exported(audit, tree_size=90)) == 91
    with refused("INVALID_ARGUMENT"):
        await exported(audit, cursor=whole[1].entry.cursor, tree_size=5)
    with acting("other"), refused("INVALID_ARGUMENT"):
        await exported(audit, cursor=whole[1].entry.cursor)
    with refused("CHECKPOINT_NOT_FOUND"):
        await exported(audit, tree_size=17)


async def test_what_cannot_be_proven(audit: Replica) -> None:
    with refused("CHECKPOINT_NOT_FOUND"):
        await checkpoint(audit)
    with refused("CHECKPOINT_NOT_FOUND"):
        await exported(audit)
    one = await append(audit, "k1")
    with refused("NOT_IN_TREE"):
        await proof(audit, one.entry.entry_id)
    await append(audit, "k2", INTEGRATED)
    two = await append(audit, "k3", SEQUENCED)
    with refused("NOT_IN_TREE"):
        await proof(audit, two.entry.entry_id)
    with refused("NOT_IN_TREE"):
        await proof(audit, two.entry.entry_id, 99)
    with refused("ENTRY_NOT_FOUND"):
        await proof(audit, "nothing")
    unsigned = await proof(audit, two.entry.entry_id, two.entry.sequence + 1)
    assert not unsigned.HasField("checkpoint")
    for first, second, reason in ((9, 0, "TREE_TOO_SHORT"), (1, 9, "TREE_TOO_SHORT"), (2, 1, "INVALID_ARGUMENT")):
        with refused(reason):
            await audit.api.GetConsistencyProof(
                GetConsistencyProofRequest(first_tree_size=first, second_tree_size=second)
            )


async def test_a_checkpoint_comes_by_itself_and_only_for_what_is_new(audit: Replica, clock: FakeClock) -> None:
    async with running(audit, "sequencer", "checkpoints"):
        await append(audit, "k1")
        await passes(clock, lambda: audit.sample("bas_audit_checkpoints_total") == 1, "a checkpoint")
        for _ in range(20):
            await clock.advance(3)
            await asyncio.sleep(0.002)
        assert audit.sample("bas_audit_checkpoints_total") == 1
        clock.step_wall(-86400)
        await append(audit, "k2")
        await passes(clock, lambda: audit.sample("bas_audit_checkpoints_total") == 2, "another")
        assert (await checkpoint(audit)).tree_size == 2


async def test_a_process_that_died_before_it_signed_leaves_that_to_others(
    audit: Replica, replica: Make, clock: FakeClock
) -> None:
    for tenant in ("acme", "acme-2", "b"):
        with acting(tenant):
            await append(audit, "k", SEQUENCED)
    other = replica(settings(checkpoint_interval=1.0))
    async with running(other, "checkpoints"):
        await passes(clock, lambda: other.sample("bas_audit_checkpoints_total") == 3, "all of them signed")


async def test_tiles_are_read_once(audit: Replica, replica: Make) -> None:
    """A proof reads the entry, its arrival, the newest checkpoint, and what it has not seen of the tree."""
    results = await append_all(audit, *(f"k{n}" for n in range(500)), level=SEQUENCED)
    await append_all(audit, *(f"m{n}" for n in range(500)), level=INTEGRATED)
    fresh = replica()
    await proof(fresh, results[0].appended.entry.entry_id)
    first = fresh.store.reads
    await proof(fresh, results[0].appended.entry.entry_id)
    assert fresh.store.reads - first == 2
    assert first < 16


@pytest.mark.parametrize("what", ["tile", "checkpoint"])
async def test_a_log_that_contradicts_itself_is_not_signed(audit: Replica, replica: Make, what: str) -> None:
    await append_all(audit, *(f"k{n}" for n in range(300)), level=INTEGRATED)
    if what == "tile":
        found = await audit.store.get(Key("acme", TILES, "0.0"))
        assert found is not None
        await audit.store.commit([Update(found.key, {**found.fields, "above": [bytes(32)]})])
    else:
        query_key = Key("acme", CHECKPOINTS, f"{300:020d}")
        found = await audit.store.get(query_key)
        assert found is not None
        await audit.store.commit([Put(query_key, {**found.fields, "root": bytes(32)})])
    fresh = replica()
    with pytest.raises(StoreCorrupt):
        await append(fresh, "new", INTEGRATED)
    assert fresh.sample("bas_audit_contradictions_total") == 1
