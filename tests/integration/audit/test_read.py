"""Reading: lists, the recent view, and what the log says of its readers."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bas.audit.v2.audit_pb2 import Actor, Entry, Resource
from bas.audit.v2.audit_service_pb2 import (
    ErasePersonalDataRequest,
    GetEntryRequest,
    ListEntriesRequest,
    RecentEntriesRequest,
)
from chassis.clock import FakeClock
from tests.integration.audit.calls import INTEGRATED, append, append_all, exported, get, listed, proof, refused
from tests.integration.audit.conftest import Make, Replica, acting, running, settings
from tests.support.eventually import eventually
from tests.support.memory_cache import MemoryCache


@pytest.fixture
async def stock(audit: Replica, clock: FakeClock) -> Replica:
    """Entries a second apart."""
    for number, (subject, action, kind, name) in enumerate(
        [
            ("ann", "device.created", "device", "d1"),
            ("bob", "device.created", "device", "d2"),
            ("ann", "device.deleted", "device", "d1"),
            ("ann", "user.created", "user", "d1"),
            ("bob", "user.listed", "user", ""),
        ]
    ):
        await clock.advance(1)
        await append(
            audit, f"k{number}", actor=Actor(subject=subject), action=action, resource=Resource(type=kind, id=name)
        )
    return audit


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, "43210"),
        ({"actor": "ann"}, "320"),
        ({"action": "device.created"}, "10"),
        ({"resource_type": "device"}, "210"),
        ({"resource_type": "device", "resource_id": "d1"}, "20"),
        ({"resource_type": "user", "resource_id": "d2"}, ""),
        ({"actor": "ann", "resource_type": "device", "resource_id": "d1", "action": "device.deleted"}, "2"),
        ({"start_time": 2}, "4321"),
        ({"end_time": 3}, "10"),
        ({"start_time": 2, "end_time": 4, "actor": "ann"}, "2"),
        ({"start_time": 4, "end_time": 2}, ""),
    ],
)
async def test_lists(stock: Replica, fields: dict[str, Any], found: str) -> None:
    """Newest first, the earliest time included, the latest not; on any size of page."""
    begun = int(FakeClock().now().timestamp())
    times = {name: Timestamp(seconds=begun + value) for name, value in fields.items() if isinstance(value, int)}
    for size in (0, 1, 2):
        assert await listed(stock, page_size=size, **(fields | times)) == [f"k{each}" for each in found]


async def test_what_cannot_be_asked(stock: Replica) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"resource_id": "d1"}, {"page_token": "x"}, {"page_size": -1})
    for fields in wrong:
        with refused("INVALID_ARGUMENT"):
            await listed(stock, **fields)
    page = await stock.api.ListEntries(ListEntriesRequest(page_size=1))
    with refused("INVALID_ARGUMENT"):
        await listed(stock, page_token=page.next_page_token, actor="ann")


async def test_a_cursor_stays_where_it_is(stock: Replica, clock: FakeClock) -> None:
    page = await stock.api.ListEntries(ListEntriesRequest(page_size=2, resource_type="device"))
    await clock.advance(1)
    await append(stock, "new")
    assert await listed(stock, page_token=page.next_page_token, resource_type="device") == ["k0"]


def of_readers(entries: "list[Entry]") -> list[str]:
    return [each.actor.subject for each in entries if each.action == "audit.read"]


async def recent(audit: Replica, page_size: int = 0) -> "list[Entry]":
    return list((await audit.api.RecentEntries(RecentEntriesRequest(page_size=page_size))).entries)


async def test_reading_is_recorded_once_for_each_caller_and_minute(
    stock: Replica, replica: Make, clock: FakeClock
) -> None:
    other = replica()
    for each in (stock, other, stock):
        await listed(each)
        assert of_readers(await recent(each)) == ["tester"]
    with acting("acme", "bob"):
        assert sorted(of_readers(await recent(other))) == ["bob", "tester"]
    await clock.advance(60)
    await listed(other)
    with acting("acme", "eve"), refused("ENTRY_NOT_FOUND"):
        await other.api.GetEntry(GetEntryRequest(entry_id="x"))
    assert sorted(of_readers(await recent(stock))) == ["bob", "eve", "tester", "tester"]
    with acting("elsewhere"):
        assert of_readers(await recent(stock)) == ["tester"]


async def test_without_its_flag_the_recent_view_never_touches_the_cache(stock: Replica) -> None:
    before = stock.cache.operations
    for _ in range(3):
        assert len(await recent(stock)) == 6
    assert stock.cache.operations == before


async def test_with_its_flag_the_recent_view_is_as_old_as_that_allows(replica: Make, clock: FakeClock) -> None:
    cache = MemoryCache(clock)
    audit, plain = replica(settings(recent_cache=True, recent_ttl=20.0), cache), replica()
    with acting("acme"):
        await append(plain, "k1")
        assert len(await recent(audit)) == 2
        assert "audit:recent:{acme}" in cache.held()
        await append(plain, "k2")
        assert len(await recent(audit)) == 2, "from the cache"
        assert len(await recent(audit, 1)) == 1
        await clock.advance(20)
        assert len(await recent(audit)) == 3
        await audit.api.ErasePersonalData(ErasePersonalDataRequest(actor="ann"))
        assert not any(each.actor.subject == "ann" for each in await recent(audit)), "erased there, too"
        cache.away = True
        assert len(await recent(audit)) == 4


async def test_a_recent_view_has_at_most_a_hundred(audit: Replica) -> None:
    await append_all(audit, *(f"k{n}" for n in range(120)))
    assert [len(await recent(audit, size)) for size in (0, 7, 100, 1000)] == [50, 7, 100, 100]
    with refused("INVALID_ARGUMENT"):
        await recent(audit, -1)


async def erase(audit: Replica, **fields: str) -> tuple[int, bool]:
    answer = await audit.api.ErasePersonalData(ErasePersonalDataRequest(**fields))
    return answer.erased_count, answer.more


async def test_erasing_leaves_every_proof(stock: Replica, clock: FakeClock) -> None:
    answer = await append(stock, "k9", INTEGRATED)
    before = await exported(stock)
    size = before[0].checkpoint.tree_size
    assert await erase(stock, actor="ann") == (4, False)
    after = await exported(stock, tree_size=size)
    for old, new in zip(before[1:], after[1:], strict=True):
        assert (old.entry.leaf_hash, old.entry.personal_hash) == (new.entry.leaf_hash, new.entry.personal_hash)
        gone = old.entry.entry.actor.subject == "ann"
        assert new.entry.entry.HasField("actor") != gone
        assert bool(new.entry.personal_salt) != gone
    assert (await proof(stock, answer.entry.entry_id, size)).checkpoint == before[0].checkpoint
    assert await listed(stock, actor="ann") == []
    (record,) = [each for each in await recent(stock) if each.action == "audit.personal-data-erased"]
    assert (record.actor.subject, record.metadata["entries"]) == ("tester", "4")
    assert b"ann" not in record.SerializeToString()
    assert await erase(stock, actor="ann") == (0, False)
    assert (await append(stock, "k9")).entry.entry_id == answer.entry.entry_id


async def test_erasing_one_entry_and_many(audit: Replica) -> None:
    results = await append_all(audit, *(f"k{n}" for n in range(500)))
    one = results[0].appended.entry.entry_id
    assert await erase(audit, entry_id=one) == (1, False)
    assert await erase(audit, entry_id=one) == (0, False)
    assert not (await get(audit, one)).HasField("actor")
    assert await erase(audit, actor="ann") == (490, True)
    assert await erase(audit, actor="ann") == (9, False)
    assert (await append(audit, "k0")).entry.entry_id == one, "a repetition is still known as one"
    for fields in ({}, {"actor": "a", "entry_id": "b"}):
        with refused("INVALID_ARGUMENT"):
            await erase(audit, **fields)
    with refused("ENTRY_NOT_FOUND"):
        await erase(audit, entry_id="nothing")
    with acting("other"), refused("ENTRY_NOT_FOUND"):
        await erase(audit, entry_id=one)


async def test_what_is_too_old_is_dropped_to_its_hash(replica: Make, clock: FakeClock) -> None:
    audit = replica(settings(retention=3600.0))
    with acting("acme"):
        old = await append_all(audit, "k1", "k2", level=INTEGRATED)
        await clock.advance(3000)
        await append(audit, "k3", INTEGRATED)
        before = await exported(audit)
        async with running(audit, "retention"):
            for _ in range(4):
                await eventually(lambda: clock.sleepers == 1, "the end of a sweep")
                await clock.advance(361)
            await eventually(lambda: audit.sample("bas_audit_dropped_total") == 2, "what is dropped")
        after = await exported(audit, tree_size=before[0].checkpoint.tree_size)
        assert [each.entry.leaf_hash for each in after] == [each.entry.leaf_hash for each in before]
        shown = [each.entry.entry.idempotency_key for each in after[1:]]
        assert shown[:3] == ["", "", "k3"]
        assert after[1].entry.entry == Entry(sequence=0)
        entry_id = old[0].appended.entry.entry_id
        with refused("ENTRY_DROPPED"):
            await get(audit, entry_id)
        assert (await proof(audit, entry_id, 2)).leaf_hash == before[1].entry.leaf_hash
        assert (await append(audit, "k1")).entry.entry_id == entry_id
        assert await listed(audit) == ["k3"]
