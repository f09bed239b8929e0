"""What is promised of committed effects, whatever engine holds them."""

import asyncio

import pytest

from chassis.clock import FakeClock
from chassis.outbox.port import AUDIT, EVENT
from chassis.outbox.records import all_parked, all_pending, key_of
from chassis.store.port import Create, DocumentExists, DocumentStore, Key
from tests.conformance.outbox.backend import Conformance
from tests.support.deliveries import AWAY, POISON, Consumer, Office, effect

STATE = Key("acme", "things", "d1")


class Relaying(Conformance):
    async def test_what_is_committed_with_the_state_is_delivered_once_and_removed(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer()
        office = Office(store, consumer, clock)
        told = effect("a", payload=b"\x00\xff")
        await store.commit([Create(STATE, {}), *office.outbox.records([told])])
        await office.relay.walk()
        await office.relay.walk()
        assert consumer.took == [told]
        assert consumer.came["a"] == 1
        assert await store.get(key_of("a")) is None
        assert await store.count(all_pending()) == 0

    async def test_what_is_not_committed_is_not_delivered(self, store: DocumentStore, clock: FakeClock) -> None:
        consumer = Consumer()
        office = Office(store, consumer, clock)
        await store.commit([Create(STATE, {})])
        with pytest.raises(DocumentExists):
            await store.commit([Create(STATE, {}), *office.outbox.records([effect("a")])])
        await office.relay.walk()
        assert consumer.took == []

    async def test_kinds_that_nobody_delivers_make_no_records(self, store: DocumentStore, clock: FakeClock) -> None:
        office = Office(store, {EVENT: Consumer()}, clock)
        assert office.outbox.records([effect("a", kind=AUDIT)]) == []

    @pytest.mark.parametrize("batch", [1, 2, 3, 7, 200])
    async def test_order_within_a_key_is_the_order_of_the_commits(
        self, store: DocumentStore, clock: FakeClock, batch: int
    ) -> None:
        consumer = Consumer()
        office = Office(store, consumer, clock, batch=batch)
        wanted = {f"devices/{number}": [f"{(7 * n) % 13:02}{number}" for n in range(9)] for number in range(3)}
        await office.commit_all(effect(name, key) for key, names in wanted.items() for name in names)
        await office.relay.walk()
        assert {key: consumer.ids(key) for key in wanted} == wanted
        assert await store.count(all_pending()) == 0

    async def test_effects_of_one_commit_are_in_the_order_in_which_they_were_given(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer()
        office = Office(store, consumer, clock)
        names = [f"{(7 * n) % 30:02}" for n in range(30)]
        await office.commit(*(effect(name) for name in names))
        await office.relay.walk()
        assert consumer.ids() == names

    async def test_a_consumer_that_is_away_is_waited_for_however_long(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer(away=AWAY)
        office = Office(store, consumer, clock)
        await office.commit_all(effect(f"{n}", f"devices/{n % 3}") for n in range(12))
        for _ in range(20):
            await office.relay.walk()
            await clock.advance(16)
        assert consumer.took == []
        assert office.value("bas_outbox_pending") == 12
        assert office.value("bas_outbox_oldest_seconds") == pytest.approx(320)
        assert office.value("bas_outbox_parked") == 0
        consumer.away = None
        await office.relay.walk()
        assert consumer.ids("devices/1") == ["1", "4", "7", "10"]
        assert office.value("bas_outbox_pending") == 0
        assert office.value("bas_outbox_oldest_seconds") == 0

    async def test_a_refused_effect_blocks_its_key_alone_and_is_parked(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer()
        office = Office(store, consumer, clock, attempts=3)
        await office.commit(effect("bad", payload=POISON))
        await office.commit(effect("after"))
        await office.commit(effect("other", "devices/d2"))
        for _ in range(2):
            await office.relay.walk()
            assert consumer.ids() == ["other"]
            await clock.advance(16)
        await office.relay.walk()
        await office.relay.walk()
        assert consumer.ids() == ["other", "after"]
        assert await store.count(all_parked()) == 1
        parked = await store.get(key_of("bad"))
        assert parked is not None
        assert parked.fields["attempts"] == 3
        assert parked.fields["reason"] == "The consumer wants none of this."
        assert office.value("bas_outbox_parked") == 1
        assert office.value("bas_outbox_effects_total", kind=EVENT, outcome="refused") == 3
        assert office.value("bas_outbox_effects_total", kind=EVENT, outcome="parked") == 1
        await clock.advance(100)
        await office.relay.walk()
        assert consumer.came["bad"] == 0

    async def test_two_relays_at_once_deliver_twice_at_most_and_in_order(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer()
        offices = [Office(store, consumer, clock, by=by, batch=5) for by in ("one", "two")]
        names = [f"{(7 * n) % 23:02}" for n in range(23)]
        await offices[0].commit_all(effect(f"{key}-{name}", key) for name in names for key in ("a", "b"))
        await clock.advance(5)
        await asyncio.gather(*(office.relay.walk() for office in offices))
        for key in ("a", "b"):
            assert consumer.ids(key) == [f"{key}-{name}" for name in names]
        assert await store.count(all_pending()) == 0

    async def test_another_process_has_its_time_before_its_effects_are_taken(
        self, store: DocumentStore, clock: FakeClock
    ) -> None:
        consumer = Consumer()
        mine, dead = (Office(store, consumer, clock, by=by) for by in ("mine", "dead"))
        await dead.commit(effect("left"))
        await mine.relay.walk()
        assert consumer.took == []
        await clock.advance(2)
        await mine.relay.walk()
        assert consumer.ids() == ["left"]
