"""firestore.indexes.json: up to date, and enough for every query that a service can issue, and no more."""

import itertools
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.firestore import FirestoreStore
from chassis.store.firestore_indexes import definition
from chassis.store.port import Filter, Index, Op, Order, Query, Schema, UndeclaredQuery
from launcher.store import schema_of
from launcher.targets import SERVICES
from services.devices.filters import COLLECTION, EVER, ORDERS, SCHEMA, compile_filter, order_of
from tests.support import patience
from tests.support.firestore import serving
from tools.indexes import TARGET, text

FILTERS = (
    "",
    'status = "ONLINE"',
    'status != "ONLINE"',
    'type = "camera"',
    'type != "camera"',
    'labels.site = "a"',
    'labels.site = "a" AND labels.floor = "2"',
)
TIMES = ("", 'create_time > "2026-01-01T00:00:00Z"', 'create_time = "2026-01-01T00:00:00Z"')


def written() -> list[str]:
    """Every combination of the conditions above, by their fields."""
    fields = ([""], FILTERS[1:3], FILTERS[3:5], FILTERS[5:], TIMES)
    choices = [["", *(each for each in field if each)] for field in fields]
    return [" AND ".join(filter(None, each)) for each in itertools.product(*choices)]


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreStore]:
    async with serving(indexes=TARGET) as server:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.address)
        store = await opened(SCHEMA, "devices")
        yield store
        await store.close()


async def opened(schema: Schema, service: str) -> FirestoreStore:
    return await FirestoreStore.open(
        "test",
        "(default)",
        schema,
        clock=SystemClock(),
        budget=patience.STORE,
        random_bytes=secrets.token_bytes,
        service=service,
    )


def test_the_file_is_what_the_services_declare() -> None:
    assert TARGET.read_text(encoding="utf-8") == text(), "run: python tools/indexes.py"


def test_every_collection_gives_up_its_automatic_indexes_and_the_ttl_stands_in_the_file() -> None:
    overrides = json.loads(text())["fieldOverrides"]
    assert {"collectionGroup": "devices", "fieldPath": "*", "indexes": []} in overrides
    assert {
        "collectionGroup": "devices-requests",
        "fieldPath": "expire_time",
        "indexes": [],
        "ttl": True,
    } in overrides


@pytest.mark.parametrize("order_by", ["", *ORDERS.orders])
async def test_every_list_of_devices_has_its_indexes(store: FirestoreStore, order_by: str) -> None:
    served = 0
    for each in written():
        compiled = compile_filter(each)
        try:
            order = order_of(order_by, compiled)
        except ApiError:
            continue  # the service refuses it
        after = (*("x" for _ in order), "id")
        for cursor in (None, after):
            assert await store.query(Query("acme", COLLECTION, compiled.filters, order, cursor)) == []
        served += 1
    assert served


async def test_every_count_of_devices_has_its_indexes(store: FirestoreStore) -> None:
    for each in written():
        compiled = compile_filter(each)
        for status in ("ONLINE", "OFFLINE"):
            others = (each for each in compiled.filters if each.field != "status")
            filters = (Filter("status", Op.EQ, status), *others, EVER)
            assert await store.count(Query("acme", COLLECTION, filters)) == 0


async def test_the_sweep_has_its_index(store: FirestoreStore) -> None:
    filters = (Filter("status", Op.EQ, "ONLINE"), Filter("last_seen_time", Op.LT, SystemClock().now()))
    assert await store.query(Query("acme", COLLECTION, filters, (Order("last_seen_time"),))) == []


@pytest.mark.parametrize("service", SERVICES)
async def test_every_index_of_every_service_is_in_the_file(store: FirestoreStore, service: str) -> None:
    """Also when a filter is a NE or a list, and upwards and downwards."""
    schema = schema_of(service)
    other = await opened(schema, service)
    for index in schema.indexes:
        choices = [
            [Filter(name, Op.CONTAINS, "x")]
            if name in index.contains
            else [Filter(name, Op.EQ, "x"), Filter(name, Op.IN, ["x", "y"]), Filter(name, Op.NE, "x")]
            for name in index.fields
        ]
        for filters in itertools.product(*choices):
            query = Query("acme", index.collection, filters, index.order)
            assert await other.query(query) == []
            if index.order:
                ranged = (*filters, Filter(index.order[0].field, Op.GT, "x"))
                assert await other.query(replace(query, filters=ranged)) == []
                assert await other.count(replace(query, filters=ranged)) == 0
            else:
                assert await other.count(query) == 0
    await other.close()


async def test_a_declaration_that_is_not_deployed_is_told_apart(store: FirestoreStore) -> None:
    """The seeded bug: a service that declares a query which the file does not have."""
    ahead = await opened(Schema(indexes=(Index(COLLECTION, ("status",), (Order("type"),)),)), "devices")
    query = Query("acme", COLLECTION, (Filter("status", Op.EQ, "ONLINE"),), (Order("type"),))
    with pytest.raises(UndeclaredQuery, match=r"deploy firestore\.indexes\.json"):
        await ahead.query(query)
    await ahead.close()
    with pytest.raises(UndeclaredQuery, match="declare"):
        await store.query(query)


def test_services_share_nothing_but_the_database() -> None:
    one = Schema(indexes=(Index("outbox", ("shard",), (Order("sequence"),)),), ttl_fields={"requests": "expire_time"})
    groups = {entry["collectionGroup"] for entry in definition({"users": one, "audit": one})["indexes"]}
    assert groups == {"users-outbox", "audit-outbox"}
